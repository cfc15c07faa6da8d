"""Files that need no GOPro: they say what torch says, of any number of images, and what they themselves are."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import open_clip
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import Tensor, nn

import gopro
from gopro import cli
from gopro.clip.backbone import Backbone
from gopro.clip.encode_text import make_prompts
from gopro.clip.packed_prompts import PackedPrompts
from gopro.data.transforms import Preprocess
from gopro.errors import InputError
from gopro.inference.export import export as exporting
from gopro.inference.export.export import export_run
from gopro.inference.export.formats import FORMATS
from gopro.inference.export.graph import Graph
from gopro.inference.taylor_head import TaylorHead, constant_head, fit_taylor_head
from gopro.methods.base import Method
from gopro.methods.recipe import Training
from gopro.methods.registry import METHODS, build_method
from tests.conftest import make_tiny

NAMES = ["red fox", "owl", "grand piano", "dog", "very slow old train"]
TEMPLATE = "a photo of a {}."


def images(count: int, size: int = 32, seed: int = 3) -> Tensor:
    """Images of 8 bits, normalised as the tiny backbones want them."""
    eight = torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed))
    return (eight / 255 - 0.5) / 0.25


def learned(spec: str, backbone: Backbone) -> Method:
    """A method in the state that training could leave it in."""
    torch.manual_seed(2)  # with which one of the two hidden units of CoCoOp's meta net is above zero, as one must be
    method = build_method(spec, backbone, NAMES, TEMPLATE)
    if Training.CLOSED_FORM in method.trained_by:
        labels = torch.arange(10) % len(NAMES)
        method.solve([backbone.encode(images(10, seed=i)) for i in range(max(1, method.draws))], labels)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method.eval()


def opened(graph: Graph, format: Any = "onnx"):
    kind = FORMATS[format]
    return kind.open(kind.pack(kind.convert(graph.trace()), "{}"))


@torch.no_grad()
def probabilities(method: Method, images: Tensor) -> Tensor:
    return method.logits(method.encode(images)).softmax(dim=-1)


def agrees(graph: Graph, method: Method, format: Any = "onnx") -> None:
    """For one image, for as many as it was traced with, and for others."""
    run = opened(graph, format)
    inputs = images(5, graph.size)
    expected = probabilities(method, inputs)
    assert (expected.amax(dim=0) - expected.amin(dim=0)).max() > 0.01  # the images make a difference
    for some in (slice(1), slice(2), slice(5), slice(3, 4)):
        torch.testing.assert_close(run(graph.given(inputs[some])), expected[some], atol=1e-5, rtol=0)


@pytest.mark.no_cover  # tracing and converting are torch's own Python, which takes twice as long with coverage
@pytest.mark.parametrize("name", METHODS)
def test_every_method_goes_into_a_file_with_its_exact_head(name: str, tiny: Backbone) -> None:
    by_image = name in ("cocoop", "stylip", "gopro", "gopro-release")  # each layer of the text goes into the graph
    method = learned(name, make_tiny(layers=1) if by_image else tiny).for_classes(NAMES[::-1])
    exact = method if by_image else constant_head(method, method.classnames)
    agrees(Graph(exact, inside=False), method)


@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["gopro", "cocoop"])
def test_a_first_order_head_goes_into_a_file(name: str, tiny: Backbone) -> None:
    method = learned(name, tiny)
    seen, held_out = (tiny.encode(images(20, seed=seed)) for seed in (8, 9))
    head = fit_taylor_head(method, NAMES, seen, held_out, error=1e-9)
    assert len(head.expansion) > 0
    agrees(Graph(head, inside=False), head)


@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["mmrl", "gopro"])
def test_torchs_own_format_holds_the_same(name: str, tiny: Backbone) -> None:
    method = learned(name, tiny)
    exact = method if name == "gopro" else constant_head(method, NAMES)
    agrees(Graph(exact, inside=False), method, "torch")


def test_images_of_8_bits_are_normalised_inside(tiny: Backbone) -> None:
    method = learned("zeroshot", tiny)
    graph = Graph(constant_head(method, NAMES), inside=True)
    eight = graph.given(images(2))
    assert eight.dtype == torch.uint8 and eight.shape == (2, 32, 32, 3)
    again = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(3))
    assert torch.equal(eight.permute(0, 3, 1, 2).long(), again)
    agrees(graph, method)


@pytest.mark.no_cover
def test_a_resnet_goes_into_a_file() -> None:
    vision = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(32, vision, {"layers": 1, "width": 64, "heads": 2})
    backbone = Backbone("resnet", model, open_clip.SimpleTokenizer(), Preprocess(64, (0.5,) * 3, (0.25,) * 3))
    method = build_method("gopro", backbone, NAMES, TEMPLATE).eval()
    run = opened(Graph(method, inside=False))
    torch.testing.assert_close(run(images(3, 64)), probabilities(method, images(3, 64)), atol=1e-5, rtol=0)


def test_prompts_on_their_own_are_the_prompts_with_no_more_embeddings_than_they_have_tokens(tiny: Backbone) -> None:
    prompts = make_prompts(tiny.text, NAMES, before=4, tail=".")
    assert isinstance(prompts, PackedPrompts)
    prompts.memory = 1  # class by class
    own = prompts.on_their_own()
    contexts = torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(own(contexts), prompts(contexts), atol=1e-5, rtol=1e-5)
    tokens = {token for name in NAMES for token in [*tiny.text.tokens(f"{name}."), tiny.text.eot]}
    assert own.tower.token_embedding.num_embeddings == len(tokens)
    assert own.tokens == sum(len(tiny.text.tokens(f"{name}.")) + 1 for name in NAMES)
    assert len(own._chunks(own._room(3, 21), False)) == 1
    assert isinstance(tiny.text.token_embedding, nn.Embedding) and tiny.text.token_embedding.num_embeddings > 40_000


def test_a_text_tower_that_cannot_be_packed_is_refused_for_the_exact_head(tiny: Backbone) -> None:
    method = learned("cocoop", tiny)
    method.prompts = object()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="use the first-order head"):
        Graph(method, inside=False)


def trained(method: str, folder: Path) -> Path:
    settings = f"--data emoji-activities --classes base --method {method} --shots 1 --epochs 1 --batch 16 --workers 0"
    cli.main(f"train {settings} --output {folder}".split())
    return folder


@pytest.fixture(scope="module")
def cocoop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose text is made out of each image, the larger file of the two kinds."""
    return trained("cocoop", tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def coop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose text is the same for all images, which is converted in a moment."""
    return trained("coop", tmp_path_factory.mktemp("export") / "run")


@pytest.fixture
def by_image(cocoop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(exporting, "MOST_IMAGES", 40)
    return Path(shutil.copytree(cocoop, tmp_path / "run"))


@pytest.fixture
def run_folder(coop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(exporting, "MOST_IMAGES", 40)
    return Path(shutil.copytree(coop, tmp_path / "run"))


def read(path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    session = onnxruntime.InferenceSession(path)
    return session, json.loads(session.get_modelmeta().custom_metadata_map["gopro"])


@pytest.mark.no_cover
def test_the_command_writes_a_file_that_says_what_it_is(by_image: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "names.txt").write_text("chess pawn\nsoccer ball\n日本 fan\n", encoding="utf-8")
    cli.main(f"export {by_image} --classes {tmp_path / 'names.txt'} --format onnx".split())
    out = capsys.readouterr().out
    assert "cocoop on 3 classes, exact head" in out and "Checked on 40 images" in out and "100.00 %" in out
    onnx.checker.check_model(onnx.load(by_image / "model.onnx"), full_check=True)
    session, about = read(by_image / "model.onnx")
    [given], [got] = session.get_inputs(), session.get_outputs()
    assert (given.name, given.type, given.shape) == ("images", "tensor(float)", ["batch", 3, 64, 64])
    assert (got.name, got.type, got.shape) == ("probabilities", "tensor(float)", ["batch", 3])
    classifier = gopro.load(by_image, "cpu").for_classes(["chess pawn", "soccer ball", "日本 fan"])
    backbone = classifier.method.backbone
    assert about["classnames"] == list(classifier.classes_) and about["method"] == "cocoop"
    assert about["backbone"] == {"name": "emoji", "fingerprint": backbone.fingerprint()}
    assert about["head"] == {"kind": "exact"} and about["input"] == "float32 [batch, 3, 64, 64]"
    assert about["preprocess"]["mean"] == list(backbone.preprocess.mean) and about["preprocess"]["inside"] == []
    assert about["check"]["images"] == 40 and 0 <= about["check"]["max"] < 1e-4


def test_a_first_order_file_says_how_near_its_head_comes(by_image: Path, capsys) -> None:
    cli.main(f"export {by_image} --head first-order --preprocess inside".split())
    out = capsys.readouterr().out
    session, about = read(by_image / "model.onnx")
    assert f"first-order head of {about['head']['terms']} terms" in out and "This head and the exact one, on 21" in out
    assert about["head"]["kind"] == "first-order" and about["head"]["agreement"]["images"] == 21
    assert about["input"] == "uint8 [batch, 64, 64, 3]" and about["preprocess"]["inside"] == ["scale", "normalise"]
    image = gopro.load_dataset("emoji-activities").test[5].image.open()
    [found] = session.run(None, {"images": np.asarray(image)[None]})[0]
    expected = gopro.load(by_image, "cpu", "first-order").predict_proba(image)
    assert np.abs(found - expected).max() < 1e-5


def test_torchs_file_carries_the_same_words(run_folder: Path, tmp_path: Path) -> None:
    done = export_run(run_folder, ["fan", "kite"], format="torch", output=tmp_path / "small.pt2")
    assert done.path == tmp_path / "small.pt2" and done.size == done.path.stat().st_size
    extra = {"gopro.json": ""}
    program = torch.export.load(io.BytesIO(done.path.read_bytes()), extra_files=extra)
    assert json.loads(extra["gopro.json"]) == done.about
    assert program.module()(torch.zeros(7, 3, 64, 64)).shape == (7, 2)


def test_auto_takes_the_exact_head_as_far_as_it_is_cheap(cocoop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = gopro.load(cocoop, "cpu").for_classes(["fan", "kite", "chess pawn"])
    tokens = sum(len(classifier.method.backbone.text.tokens(f"{name}.")) + 1 for name in classifier.classes_)
    monkeypatch.setattr(exporting, "MOST_TOKENS", tokens)
    assert exporting.with_head(classifier, "auto") is classifier.method
    monkeypatch.setattr(exporting, "MOST_TOKENS", tokens - 1)
    assert isinstance(exporting.with_head(classifier, "auto"), TaylorHead)
    assert exporting.with_head(classifier, "exact") is classifier.method


def test_images_of_ones_own_are_compared_where_the_data_is_gone(run_folder: Path, tmp_path: Path) -> None:
    config = json.loads((run_folder / "config.json").read_text())
    config["config"]["data"] = "gone"
    (run_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"gone.*--images"):
        export_run(run_folder, ["fan", "kite"])
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (50, 90, 3), dtype=np.uint8)
        (tmp_path / "mine" / "deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "mine" / "deep" / f"{i}.png")
    done = export_run(run_folder, ["fan", "kite"], format="torch", images=tmp_path / "mine")
    assert done.agreement.images == 3 and done.about["check"]["of"] == str(tmp_path / "mine")
    (tmp_path / "mine" / "deep" / "broken.png").write_bytes(b"broken")
    done.path.unlink()
    with pytest.raises(InputError, match=r"broken\.png"):
        export_run(run_folder, ["fan", "kite"], format="torch", images=tmp_path / "mine")


def test_a_file_that_says_something_else_than_torch_is_not_left(
    run_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = FORMATS["onnx"]

    def spoiled(model: Any, about: str) -> bytes:
        """The file with the weights of one norm in the image tower a little off."""
        proto = onnx.load_from_string(kind.pack(model, about))
        [norm] = [w for w in proto.graph.initializer if w.name.endswith("ln_post.weight")]
        norm.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(norm)[::-1].copy(), norm.name))
        return proto.SerializeToString()

    monkeypatch.setitem(FORMATS, "onnx", replace(kind, pack=spoiled))
    before = sorted(run_folder.rglob("*"))
    with pytest.raises(InputError, match=r"no file was written: on 40 images onnxruntime is up to 0\.\d+ from torch"):
        export_run(run_folder)
    assert sorted(run_folder.rglob("*")) == before


def test_wishes_that_cannot_be_met_are_one_line(run_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (run_folder / "model.pt2").write_text("mine")
    wrong = {
        f"export {run_folder} --format torch": "model.pt2 is there already",
        f"export {run_folder} --format tflite": "tflite",
        f"export {run_folder} --head second": "second",
        f"export {run_folder} --classes fan,fan": "'fan' is given twice",
        f"export {run_folder} --classes {tmp_path / 'no.txt'}": "no.txt",
        f"export {run_folder} --output {tmp_path / 'no' / 'model.onnx'}": "there is no folder",
        f"export {run_folder} --images {tmp_path / 'nothing'}": "no such image or folder of images",
        f"export {tmp_path / 'nothing'}": "no such folder",
    }
    for command, word in wrong.items():
        with pytest.raises(SystemExit) as stop:
            cli.main(command.split())
        [line] = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and word in line, line
    for settings in ({"format": "tflite"}, {"head": "second"}):
        with pytest.raises(InputError, match="choose one of"):
            export_run(run_folder, **settings)
    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], packages=("onnx", "no_such_package")))
    with pytest.raises(InputError, match=r"needs no_such_package: pip install '\.\[export\]'"):
        export_run(run_folder)
    assert (run_folder / "model.pt2").read_text() == "mine" and not (run_folder / "model.onnx").exists()
