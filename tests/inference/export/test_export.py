"""Exported files: they predict what torch predicts, for any number of images, and describe themselves."""

from __future__ import annotations

import doctest
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
from gopro.clip.text.encode import make_prompts
from gopro.clip.text.packed_prompts import PackedPrompts
from gopro.data.images.transforms import Preprocess
from gopro.errors import InputError
from gopro.inference.export import ExportSettings, export_run, model_file
from gopro.inference.export import compare as comparison
from gopro.inference.export.formats import FORMATS
from gopro.inference.export.graph import Graph
from gopro.inference.taylor_head import TaylorHead, constant_head, fit_taylor_head
from gopro.methods.base import Method
from gopro.methods.recipe import Training
from gopro.methods.registry import METHODS, build_method
from tests.conftest import make_tiny

slow = pytest.mark.slow
NAMES = ["red fox", "owl", "grand piano", "dog", "very slow old train"]
TEMPLATE = "a photo of a {}."


def images(count: int, size: int = 32, seed: int = 3) -> Tensor:
    """Return random 8-bit images, normalised for the tiny backbones."""
    pixels = torch.randint(256, (count, 3, size, size), generator=torch.Generator().manual_seed(seed))
    return (pixels / 255 - 0.5) / 0.25


def trained_like(spec: str, backbone: Backbone, template: str = TEMPLATE) -> Method:
    """Return a method in a state that training could leave it in."""
    torch.manual_seed(2)  # with this seed, one of the two hidden units of CoCoOp's meta net is active
    method = build_method(spec, backbone, NAMES, template)
    if Training.CLOSED_FORM in method.trained_by:
        labels = torch.arange(10) % len(NAMES)
        method.solve(lambda count: [backbone.encode(images(10, seed=i)) for i in range(max(1, count))], labels)
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method.eval()


def convert_and_open(graph: Graph, name: Any = "onnx"):
    format = FORMATS[name]
    return format.open(format.pack(format.convert(graph.trace()), "{}"))


@torch.no_grad()
def probabilities(method: Method, images: Tensor) -> Tensor:
    return method.logits(method.encode(images)).softmax(dim=-1)


def assert_file_agrees(graph: Graph, method: Method, format: Any = "onnx") -> None:
    """Check batches of one image, of the traced size and of others."""
    run = convert_and_open(graph, format)
    views = images(5, graph.size)
    expected = probabilities(method, views)
    assert (expected.amax(dim=0) - expected.amin(dim=0)).max() > 0.01  # the images are told apart
    for some in (slice(1), slice(2), slice(5), slice(3, 4)):
        torch.testing.assert_close(run(graph.inputs(views[some])), expected[some], atol=1e-5, rtol=0)


@pytest.mark.no_cover  # tracing and converting are torch's own Python, which takes twice as long with coverage
@pytest.mark.parametrize("name", [name if name == "coop" else pytest.param(name, marks=slow) for name in METHODS])
def test_every_method_can_be_exported_with_its_exact_head(name: str, tiny: Backbone) -> None:
    deep = name in ("maple", "promptsrc", "mmrl")  # these also replace tokens of the second layer
    method = trained_like(name, tiny if deep else make_tiny(layers=1)).for_classes(NAMES[::-1])
    exact = method if method.text_depends_on_image else constant_head(method, method.classnames)
    assert_file_agrees(Graph(exact), method)


@slow
@pytest.mark.no_cover
@pytest.mark.parametrize("format", list(FORMATS))
def test_a_context_behind_the_name_can_be_exported(format: str) -> None:
    method = trained_like("gopro", make_tiny(layers=1), "{} texture.")
    assert_file_agrees(Graph(method), method, format)


@slow
@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["gopro", "cocoop"])
def test_a_first_order_head_can_be_exported(name: str, tiny: Backbone) -> None:
    method = trained_like(name, tiny)
    fit_images, held_out = (tiny.encode(images(20, seed=seed)) for seed in (8, 9))
    head = fit_taylor_head(method, NAMES, fit_images, held_out, error=1e-9)
    assert len(head.expansion) > 0
    assert_file_agrees(Graph(head), head)


@slow
@pytest.mark.no_cover
@pytest.mark.parametrize("name", ["mmrl", "gopro"])
def test_the_torch_format_agrees_too(name: str, tiny: Backbone) -> None:
    method = trained_like(name, tiny)
    exact = method if name == "gopro" else constant_head(method, NAMES)
    assert_file_agrees(Graph(exact), method, "torch")


def test_8_bit_images_are_normalised_in_the_graph(tiny: Backbone) -> None:
    method = trained_like("zeroshot", tiny)
    graph = Graph(constant_head(method, NAMES), uint8_input=True)
    inputs = graph.inputs(images(2))
    assert inputs.dtype == torch.uint8 and inputs.shape == (2, 32, 32, 3)
    pixels = torch.randint(256, (2, 3, 32, 32), generator=torch.Generator().manual_seed(3))
    assert torch.equal(inputs.permute(0, 3, 1, 2).long(), pixels)
    assert_file_agrees(graph, method)


@slow
@pytest.mark.no_cover
def test_a_resnet_can_be_exported() -> None:
    vision = {"layers": [1, 1, 1, 1], "width": 16, "image_size": 64}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = open_clip.CLIP(32, vision, {"layers": 1, "width": 64, "heads": 2})
    backbone = Backbone("resnet", model, open_clip.SimpleTokenizer(), Preprocess(64, (0.5,) * 3, (0.25,) * 3))
    method = build_method("gopro", backbone, NAMES, TEMPLATE).eval()
    run = convert_and_open(Graph(method))
    torch.testing.assert_close(run(images(3, 64)), probabilities(method, images(3, 64)), atol=1e-5, rtol=0)


def test_compact_prompts_hold_only_the_embeddings_of_their_tokens(tiny: Backbone) -> None:
    prompts = make_prompts(tiny.text, NAMES, before=4, tail=".")
    assert isinstance(prompts, PackedPrompts)
    prompts.memory = 1  # class by class
    own = prompts.for_export()
    contexts = torch.randn(3, 4, 64, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(own(contexts), prompts(contexts), atol=1e-5, rtol=1e-5)
    tokens = {token for name in NAMES for token in [*tiny.text.tokens(f"{name}."), tiny.text.eot]}
    assert own.tower.token_embedding.num_embeddings == len(tokens)
    assert own.tokens == sum(len(tiny.text.tokens(f"{name}.")) + 1 for name in NAMES)
    assert own.memory_plan(3, own.tokens, training=False).chunk_tokens >= own.tokens
    assert isinstance(tiny.text.token_embedding, nn.Embedding) and tiny.text.token_embedding.num_embeddings > 40_000


def test_the_exact_head_needs_a_packed_text_tower(tiny: Backbone) -> None:
    method = trained_like("cocoop", tiny)
    method.prompts = object()  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(InputError, match="use the first-order head"):
        Graph(method)


def trained(method: str, folder: Path) -> Path:
    settings = f"--data emoji-activities --classes base --method {method} --shots 1 --epochs 1 --batch 16 --workers 0"
    cli.main(f"train {settings} --output {folder}".split())
    return folder


@pytest.fixture(scope="module")
def cocoop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose text depends on the image: the text tower goes into the file."""
    return trained("cocoop", tmp_path_factory.mktemp("export") / "run")


@pytest.fixture(scope="module")
def coop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose text is the same for all images: the conversion is quick."""
    return trained("coop", tmp_path_factory.mktemp("export") / "run")


@pytest.fixture
def by_image(cocoop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(comparison, "MAX_IMAGES", 40)
    return Path(shutil.copytree(cocoop, tmp_path / "run"))


@pytest.fixture
def run_folder(coop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(comparison, "MAX_IMAGES", 40)
    return Path(shutil.copytree(coop, tmp_path / "run"))


def read(path: Path) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
    session = onnxruntime.InferenceSession(path)
    return session, json.loads(session.get_modelmeta().custom_metadata_map["gopro"])


@slow
@pytest.mark.no_cover
def test_the_command_writes_a_valid_file_that_describes_itself(by_image: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "names.txt").write_text("chess pawn\nsoccer ball\n日本 fan\n", encoding="utf-8")
    cli.main(f"export {by_image} --classes {tmp_path / 'names.txt'} --format onnx".split())
    out = capsys.readouterr().out
    assert "Exported cocoop for 3 classes" in out and "(exact head, " in out
    assert "compared with torch on 40 images" in out and "100.00 %" in out
    onnx.checker.check_model(onnx.load(by_image / "model.onnx"), full_check=True)
    session, metadata = read(by_image / "model.onnx")
    [input], [output] = session.get_inputs(), session.get_outputs()
    assert (input.name, input.type, input.shape) == ("images", "tensor(float)", ["batch", 3, 64, 64])
    assert (output.name, output.type, output.shape) == ("probabilities", "tensor(float)", ["batch", 3])
    classifier = gopro.load(by_image, "cpu").for_classes(["chess pawn", "soccer ball", "日本 fan"])
    backbone = classifier.method.backbone
    assert metadata["classnames"] == list(classifier.classes_) and metadata["method"] == "cocoop"
    assert metadata["backbone"] == {"name": "emoji", "fingerprint": backbone.fingerprint()}
    assert metadata["head"] == {"kind": "exact"} and metadata["input"] == "float32 [batch, 3, 64, 64]"
    assert metadata["preprocess"]["mean"] == list(backbone.preprocess.mean) and metadata["preprocess"]["inside"] == []
    assert metadata["check"]["images"] == 40 and 0 <= metadata["check"]["max"] < 1e-4


@slow
def test_a_first_order_file_reports_the_agreement_of_its_head(by_image: Path, capsys) -> None:
    cli.main(f"export {by_image} --head first-order --preprocess inside".split())
    out = capsys.readouterr().out
    session, metadata = read(by_image / "model.onnx")
    assert f"first-order head with {metadata['head']['terms']} terms" in out and "First-order head on 21 images" in out
    assert metadata["head"]["kind"] == "first-order" and metadata["head"]["agreement"]["images"] == 21
    assert metadata["input"] == "uint8 [batch, 64, 64, 3]"
    assert metadata["preprocess"]["inside"] == ["scale", "normalise"]
    image = gopro.load_dataset("emoji-activities").test[5].image.open()
    [probabilities] = session.run(None, {"images": np.asarray(image)[None]})[0]
    expected = gopro.load(by_image, "cpu", "first-order").predict_proba(image)
    assert np.abs(probabilities - expected).max() < 1e-5


def test_the_example_of_the_docstring_writes_a_torch_file_with_metadata(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runs").mkdir()
    run_folder.rename(tmp_path / "runs" / "activities")
    monkeypatch.chdir(tmp_path)
    [example] = doctest.DocTestFinder().find(export_run)
    assert doctest.DocTestRunner().run(example, clear_globs=False).failed == 0
    model, extra = example.globs["model"], {"gopro.json": ""}
    assert model.size == model.path.stat().st_size
    program = torch.export.load(io.BytesIO(model.path.read_bytes()), extra_files=extra)
    assert json.loads(extra["gopro.json"]) == model.metadata
    assert program.module()(torch.zeros(7, 3, 64, 64)).shape == (7, 2)


def test_auto_takes_the_exact_head_for_short_prompts(cocoop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = gopro.load(cocoop, "cpu").for_classes(["fan", "kite", "chess pawn"])
    tokens = sum(len(classifier.method.backbone.text.tokens(f"{name}.")) + 1 for name in classifier.classes_)
    monkeypatch.setattr(model_file, "MAX_EXACT_TOKENS", tokens)
    assert model_file.choose_head(classifier, "auto") is classifier.method
    monkeypatch.setattr(model_file, "MAX_EXACT_TOKENS", tokens - 1)
    assert isinstance(model_file.choose_head(classifier, "auto"), TaylorHead)
    assert model_file.choose_head(classifier, "exact") is classifier.method


def test_other_images_are_compared_if_the_data_set_is_gone(run_folder: Path, tmp_path: Path) -> None:
    config = json.loads((run_folder / "config.json").read_text())
    config["config"]["data"] = "gone"
    (run_folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"gone.*--images"):
        export_run(run_folder, ["fan", "kite"])
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (50, 90, 3), dtype=np.uint8)
        (tmp_path / "mine" / "deep").mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(tmp_path / "mine" / "deep" / f"{i}.png")
    settings = ExportSettings(format="torch", images=tmp_path / "mine")
    model = export_run(run_folder, ["fan", "kite"], settings)
    assert model.comparison.agreement.images == 3 and model.metadata["check"]["of"] == str(tmp_path / "mine")
    (tmp_path / "mine" / "deep" / "broken.png").write_bytes(b"broken")
    model.path.unlink()
    with pytest.raises(InputError, match=r"broken\.png"):
        export_run(run_folder, ["fan", "kite"], settings)


def test_a_file_that_disagrees_with_torch_is_not_written(run_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    onnx_format = FORMATS["onnx"]

    def pack_wrong_weights(model: Any, metadata: str) -> bytes:
        """Change the weights of one norm in the image tower."""
        proto = onnx.load_from_string(onnx_format.pack(model, metadata))
        [norm] = [w for w in proto.graph.initializer if w.name.endswith("ln_post.weight")]
        norm.CopyFrom(numpy_helper.from_array(1.5 * numpy_helper.to_array(norm)[::-1].copy(), norm.name))
        return proto.SerializeToString()

    monkeypatch.setitem(FORMATS, "onnx", replace(onnx_format, pack=pack_wrong_weights))
    before = sorted(run_folder.rglob("*"))
    with pytest.raises(InputError, match=r"no file was written: on 40 images onnxruntime differs .* by up to 0\.\d+"):
        export_run(run_folder)
    assert sorted(run_folder.rglob("*")) == before


def test_impossible_settings_are_refused_in_one_line(run_folder: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (run_folder / "model.pt2").write_text("mine")
    refusals = {
        f"export {run_folder} --format torch": "model.pt2 exists already",
        f"export {run_folder} --format tflite": "tflite",
        f"export {run_folder} --head second": "second",
        f"export {run_folder} --classes fan,fan": "'fan' is given twice",
        f"export {run_folder} --classes {tmp_path / 'no.txt'}": "no.txt",
        f"export {run_folder} --output {tmp_path / 'no' / 'model.onnx'}": "there is no folder",
        f"export {run_folder} --images {tmp_path / 'nothing'}": "no such image or folder of images",
        f"export {tmp_path / 'nothing'}": "no such folder",
    }
    for command, word in refusals.items():
        with pytest.raises(SystemExit) as stop:
            cli.main(command.split())
        [line] = capsys.readouterr().err.splitlines()
        assert stop.value.code == 2 and word in line, line
    for settings in ({"format": "tflite"}, {"head": "second"}):
        with pytest.raises(InputError, match=r"give .* or"):
            ExportSettings(**settings)
    monkeypatch.setitem(FORMATS, "onnx", replace(FORMATS["onnx"], packages=("onnx", "no_such_package")))
    with pytest.raises(InputError, match=r"needs no_such_package: pip install '\.\[export\]'"):
        export_run(run_folder)
    assert (run_folder / "model.pt2").read_text() == "mine" and not (run_folder / "model.onnx").exists()
