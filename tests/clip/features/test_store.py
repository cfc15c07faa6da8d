"""The feature store: it returns what encoding returns, whichever process wrote it and however that ended."""

import copy
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from gopro.clip.backbone import Backbone, Encoded, load_backbone
from gopro.clip.features.encode_views import ViewRequest, encode_views
from gopro.clip.features.store import FORMAT, FeatureStore, cache_folder
from gopro.data.images.image_file import ImageFile
from gopro.data.images.transforms import draw_view, make_view
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.runs.config import TrainConfig

SAMPLES = load_dataset("emoji-activities").half("base").train[::40]
SCENES = [sample.image for sample in SAMPLES[:8]]
CONFIG = TrainConfig(
    data="emoji-activities", output=Path(), method="coop", shots=1, epochs=3, batch=32, classes="base", workers=0
)


def requests(images: Sequence = SCENES) -> list[ViewRequest]:
    return [ViewRequest(p, view, draw) for p in images for draw in (0, 1) for view in ("base", "augmix")]


def encode_directly(backbone: Backbone, request: ViewRequest) -> Encoded:
    """Encode a view by the definition of a draw, without the store."""
    view = make_view(request.view, backbone.preprocess)
    key = (request.image.digest(), request.draw, request.view)
    return backbone.encode(draw_view(view, request.image.open(), *key)[None])[0]


def assert_close(stored: Encoded, direct: Encoded) -> None:
    for name in ("embedding", "mean", "std"):
        torch.testing.assert_close(getattr(stored, name), getattr(direct, name), rtol=2**-9, atol=1e-6)


def same(a: Encoded, b: Encoded) -> bool:
    return torch.equal(a.rows(), b.rows())


@pytest.mark.parametrize("workers", [0, 2])
def test_features_equal_encoding_to_half_precision(tmp_path: Path, tiny: Backbone, workers: int) -> None:
    features = encode_views(FeatureStore(tiny, tmp_path), requests(), batch=5, workers=workers)
    assert len(features) == 32
    for i, request in enumerate(requests()):
        assert_close(features[i : i + 1][0], encode_directly(tiny, request))
    grid = torch.tensor([[3, 0, 31], [3, 5, 7]])
    assert same(features[grid], features[:][grid])
    lengths = features[:].embedding.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones(32), atol=1e-6, rtol=0)


def test_images_of_stored_views_are_not_opened(tmp_path: Path, tiny: Backbone, opened: list[str]) -> None:
    first = encode_views(FeatureStore(tiny, tmp_path), requests(SCENES[:4]))
    assert sorted(opened) == sorted(scene.name for scene in SCENES[:4]), "an image is opened once for all its views"
    opened.clear()
    progress: list[int] = []
    again = encode_views(FeatureStore(tiny, tmp_path), requests(), on_progress=progress.append)
    assert sorted(opened) == sorted(scene.name for scene in SCENES[4:])
    assert same(again[:16], first[:]) and progress[0] == 16 and sum(progress) == 32


def test_features_are_keyed_by_content(tmp_path: Path, tiny: Backbone) -> None:
    image = tmp_path / "a.png"
    Image.new("RGB", (40, 40), (200, 30, 30)).save(image)
    store, made = FeatureStore(tiny, tmp_path / "store"), []

    def encode(path: Path) -> Encoded:
        return encode_views(store, [ViewRequest(ImageFile(path), "eval")], on_progress=made.append)[:]

    first = encode(image)
    shutil.copy(image, tmp_path / "other name.png")
    assert same(encode(tmp_path / "other name.png"), first) and made == [0, 1, 1]
    Image.new("RGB", (40, 40), (30, 30, 200)).save(image)
    made.clear()
    assert not same(encode(image), first) and made == [0, 1]
    with pytest.raises(InputError, match=r"nowhere\.png"):
        encode(tmp_path / "nowhere.png")


def test_views_draws_preprocessing_and_precision_have_keys_of_their_own(tmp_path: Path, tiny: Backbone) -> None:
    store = FeatureStore(tiny, tmp_path)
    views = [ViewRequest(SCENES[0], view, draw) for view, draw in (("eval", 0), ("base", 0), ("base", 1), ("moco", 0))]
    fp32 = encode_views(store, views)[:].rows()
    with torch.autocast("cpu", torch.bfloat16):
        bf16 = encode_views(store, views)[:].rows()
    other = Backbone(tiny.name, tiny.model, tiny.text.tokenizer, replace(tiny.preprocess, mean=(0.4, 0.4, 0.4)))
    assert other.fingerprint() == tiny.fingerprint()
    shifted = encode_views(FeatureStore(other, tmp_path), views)[:].rows()
    rows = torch.cat([fp32, bf16, shifted])
    assert len(rows.unique(dim=0)) == 12


def test_each_backbone_has_a_store_of_its_own(tmp_path: Path, tiny: Backbone, other: Backbone) -> None:
    for backbone in (tiny, other, tiny):
        features = encode_views(FeatureStore(backbone, tmp_path), requests(SCENES[:1]))
        assert_close(features[0:1][0], encode_directly(backbone, requests()[0]))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_digest_depends_on_the_scene_and_not_on_its_name(tiny: Backbone) -> None:
    digests = [scene.digest() for scene in SCENES]
    assert len(set(digests)) == len(SCENES) and digests == [scene.digest() for scene in SCENES]
    renamed = replace(SCENES[0], name="another")
    moved = replace(SCENES[0], index=SCENES[0].index + 1)
    assert renamed.digest() == digests[0] != moved.digest()


def many(step: int = 1) -> list[ViewRequest]:
    """Return about 700 views, forwards or backwards."""
    images = [sample.image for sample in load_dataset("emoji-activities").train[::8]]
    return [ViewRequest(image, "base", draw) for image in images for draw in (0, 1)][::step]


FILL = """
    import sys
    sys.path.insert(0, {tests!r})
    from pathlib import Path
    import torch
    from gopro.clip.features import encode_views
    from gopro.clip.backbone import load_backbone
    from gopro.clip.features.store import FeatureStore
    from test_store import many
    encode_views.FLUSH_ROWS = 32
    torch.set_num_threads(1)
    store, views = FeatureStore(load_backbone("emoji"), Path(sys.argv[1])), many(int(sys.argv[2]))
    for i in range(0, len(views), int(sys.argv[3])):
        encode_views.encode_views(store, views[i : i + int(sys.argv[3])], batch=16)
"""


@pytest.fixture
def fill(tmp_path: Path) -> Callable[..., subprocess.Popen]:
    """Return a function that starts a process that encodes `many` into a folder, `at_once` per call."""
    script = tmp_path / "fill.py"
    script.write_text(textwrap.dedent(FILL.format(tests=str(Path(__file__).parent))))

    def start(folder: Path, step: int = 1, at_once: int = 10000) -> subprocess.Popen:
        return subprocess.Popen([sys.executable, script, folder, str(step), str(at_once)])

    return start


@pytest.fixture(scope="module")
def single_process() -> Encoded:
    """The features of `many` from a single process."""
    return encode_views(FeatureStore(load_backbone("emoji"), None), many())[:]


def entries(folder: Path) -> list[bytes]:
    return [key.numpy().tobytes() for path in folder.rglob("*.safetensors") for key in load_file(path)["keys"]]


def test_processes_write_at_once_and_read_what_others_wrote(
    tmp_path: Path, fill: Callable[..., subprocess.Popen], single_process: Encoded, opened: list[str]
) -> None:
    """Two processes fill a store from opposite ends and meet; the result equals that of a single process."""
    running = [fill(tmp_path / "store", step, at_once=32) for step in (1, -1)]
    assert [process.wait() for process in running] == [0, 0]
    keys, count = entries(tmp_path / "store"), len(many())
    assert len(set(keys)) == count <= len(keys) < 1.5 * count, "neither process saw what the other had written"
    assert_close(encode_views(FeatureStore(load_backbone("emoji"), tmp_path / "store"), many())[:], single_process)
    assert not opened and not list((tmp_path / "store").rglob(".*"))


def test_a_killed_process_loses_only_what_it_had_not_written(
    tmp_path: Path, fill: Callable[..., subprocess.Popen], single_process: Encoded
) -> None:
    process, deadline = fill(tmp_path / "store"), time.monotonic() + 120
    while len(list((tmp_path / "store").rglob("*.safetensors"))) < 3:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    written = entries(tmp_path / "store")
    assert 3 * 32 <= len(written) < len(many())
    assert_close(encode_views(FeatureStore(load_backbone("emoji"), tmp_path / "store"), many())[:], single_process)
    after = entries(tmp_path / "store")
    assert len(after) == len(set(after)) == len(many()), "a view was encoded twice"


def test_features_computed_before_a_broken_image_are_stored(tmp_path: Path, tiny: Backbone, opened: list[str]) -> None:
    (tmp_path / "broken.png").write_bytes(b"no image")
    images = [*SCENES, ImageFile(tmp_path / "broken.png")]
    with pytest.raises(InputError, match=r"broken\.png"):
        encode_views(FeatureStore(tiny, tmp_path / "store"), requests(images), batch=4)
    opened.clear()
    encode_views(FeatureStore(tiny, tmp_path / "store"), requests())
    assert not opened


def test_a_damaged_or_foreign_segment_is_ignored_with_a_warning(tmp_path: Path, tiny: Backbone) -> None:
    expected = encode_views(FeatureStore(tiny, tmp_path), requests())[:]
    [path] = tmp_path.rglob("*.safetensors")
    whole, tensors = path.read_bytes(), load_file(path)
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    for content in (
        whole[:-10],
        whole[:7],
        b"",
        {"rows": tensors["rows"]},
        tensors | {"rows": tensors["rows"][:, :-1].contiguous()},
        tensors | {"rows": tensors["rows"].float()},
        tensors | {"keys": tensors["keys"][:-1].contiguous()},
        tensors | {"sums": tensors["sums"][:-1].contiguous()},
        tensors | {"sums": tensors["sums"].int()},
        tensors | {"sums": torch.tensor(0)},
    ):
        for old in tmp_path.rglob("*.safetensors"):
            old.unlink()
        path = path.with_name(f"{time.monotonic_ns()}.safetensors")
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            save_file(content, path, {"format": FORMAT})
        with pytest.warns(UserWarning, match=rf"{path.name} does not hold features") as warned:
            features = encode_views(FeatureStore(tiny, tmp_path), requests())
        assert len([w for w in warned if not issubclass(w.category, DeprecationWarning)]) == 1
        assert same(features[:], expected)


def test_an_unwritable_store_keeps_features_in_memory(tmp_path: Path, tiny: Backbone, opened: list[str]) -> None:
    expected = encode_views(FeatureStore(tiny, tmp_path / "store"), requests())[:]
    (tmp_path / "file").write_text("stands where the folder should")
    for folder in (tmp_path / "file", Path("/proc/nowhere")):
        store = FeatureStore(tiny, folder)
        with pytest.warns(UserWarning, match="features are not cached .*GOPRO_CACHE") as warned:
            features = encode_views(store, requests())
        assert len([w for w in warned if not issubclass(w.category, DeprecationWarning)]) == 1
        assert same(features[:], expected)
        opened.clear()
        assert same(encode_views(store, requests())[:], expected) and not opened


def test_the_environment_names_the_store(tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOPRO_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.setenv("GOPRO_CACHE", "off")
    assert cache_folder() is None
    encode_views(FeatureStore.default(tiny), requests(SCENES[:1]))
    monkeypatch.delenv("GOPRO_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "gopro"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "gopro"
    assert not list(tmp_path.iterdir())


def test_numbers_beyond_half_precision_are_refused(tmp_path: Path, other: Backbone) -> None:
    other.model.visual.transformer.resblocks[-1].mlp.c_proj.bias.fill_(1e6)
    with pytest.raises(InputError, match="half precision"):
        encode_views(FeatureStore(other, tmp_path), requests(SCENES[:1]))


@pytest.fixture
def other(tiny: Backbone) -> Backbone:
    """Another backbone of the same shape and name."""
    model = copy.deepcopy(tiny.model)
    model.visual.conv1.weight += 0.05
    return Backbone(tiny.name, model, tiny.text.tokenizer, tiny.preprocess)
