"""`gopro cache` and `gopro cache prune`, also while other processes read the store."""

import os
import time
from pathlib import Path

import pytest
import torch

from gopro import cli
from gopro.clip.backbone import Backbone
from gopro.clip.features.encode_views import ViewRequest, encode_views
from gopro.clip.features.prune import cached_backbones, prune
from gopro.clip.features.store import FeatureStore
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError

IMAGES = [sample.image for sample in load_dataset("emoji-activities").train[:6]]
DAY = 86400


@pytest.fixture
def filled(tmp_path: Path, tiny: Backbone) -> Path:
    """Three segments of one, two and three entries, last used 30, 20 and 10 days ago."""
    folder = tmp_path / "store"
    for number in (1, 2, 3):
        before = set(folder.rglob("*.safetensors"))
        encode_views(FeatureStore(tiny, folder), [ViewRequest(p, "base", number) for p in IMAGES[:number]])
        [path] = set(folder.rglob("*.safetensors")) - before
        age(path, 40 - 10 * number)
    return folder


def age(path: Path, days: float) -> None:
    os.utime(path, (time.time() - days * DAY,) * 2)


def counts(folder: Path) -> list[int]:
    return sorted(file.entries for cached in cached_backbones(folder) for file in cached.files)


def gopro(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: object) -> tuple[int, str, str]:
    code = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GOPRO_CACHE", str(folder))
        patch.setenv("COLUMNS", "200")
        try:
            cli.main(["cache", *map(str, arguments)])
        except SystemExit as stop:
            code = int(stop.code or 0)
    printed = capsys.readouterr()
    return code, printed.out, printed.err


def test_the_cache_is_shown_by_backbone(filled: Path, tiny: Backbone, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = gopro(capsys, filled)
    size = sum(path.stat().st_size for path in filled.rglob("*.safetensors"))
    [row] = [line.split() for line in out.splitlines() if line.startswith("tiny")]
    assert code == 0
    assert row == ["tiny", tiny.fingerprint(), "6", f"{size / 1e6:.1f}", "MB", "10", "days", "ago"]
    assert str(filled) in out
    code, out, _ = gopro(capsys, filled / "none")
    assert code == 0 and out.startswith("0.0 MB in")


@pytest.mark.parametrize(
    ("options", "rest"),
    [
        (["--older-than", 25], [2, 3]),
        (["--older-than", 15, "--backbone", "tiny"], [3]),
        (["--older-than", 31], [1, 2, 3]),
        (["--keep-gb", 0], []),
        (["--keep-gb", 1], [1, 2, 3]),
        (["--all"], []),
    ],
)
def test_prune_deletes_segments_unused_for_long(
    options: list, rest: list[int], filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = gopro(capsys, filled, "prune", *options)
    assert code == 0 and out.startswith(f"deleted {3 - len(rest)} file") and counts(filled) == rest
    assert bool(list(filled.iterdir())) == bool(rest), "an empty folder remains"


def test_the_least_recently_used_are_deleted_first(filled: Path) -> None:
    sizes = [file.size for cached in cached_backbones(filled) for file in cached.files]
    files, size = prune(filled, keep_gb=(sum(sizes) - 1) / 1e9)
    assert (files, size) == (1, min(sizes)) and counts(filled) == [2, 3]


def test_reading_counts_as_use(filled: Path, tiny: Backbone) -> None:
    encode_views(FeatureStore(tiny, filled), [ViewRequest(IMAGES[0], "base", 1)])
    prune(filled, older_than=15)
    assert counts(filled) == [1, 3]


def test_a_reader_is_not_disturbed(filled: Path, tiny: Backbone) -> None:
    requests = [ViewRequest(p, "base", 3) for p in IMAGES[:3]]
    store = FeatureStore(tiny, filled)
    features = encode_views(store, requests)
    before = features[:].rows().clone()
    prune(filled, everything=True)
    assert torch.equal(features[:].rows(), before)
    store.write([b"another key here"], torch.zeros(1, tiny.row_width, dtype=torch.float16))
    assert counts(filled) == [1], "its folder is created again"
    assert [cached.name for cached in cached_backbones(filled)] == ["tiny"]


def test_prune_deletes_the_leftovers_of_a_killed_process(filled: Path) -> None:
    [folder] = filled.iterdir()
    for name, days in ((".a.safetensors.123", 1), (".b.safetensors.124", 0)):
        (folder / name).write_bytes(b"half of it")
        age(folder / name, days)
    prune(filled, older_than=100)
    assert [path.name for path in folder.glob(".*")] == [".b.safetensors.124"]


def test_segments_of_other_backbones_and_foreign_files_stay(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [folder] = filled.iterdir()
    other = filled / "0123456789abcdef"
    other.mkdir()
    (other / "backbone.json").write_text('{"name": "other"}')
    (other / "broken.safetensors").write_bytes(b"no tensors")
    (filled / "notes.txt").write_text("not ours")
    code, out, _ = gopro(capsys, filled)
    assert code == 0 and "other" in out and "tiny" in out
    prune(filled, backbone=folder.name, everything=True)
    assert [cached.name for cached in cached_backbones(filled)] == ["other"]
    prune(filled, everything=True)
    assert [path.name for path in filled.iterdir()] == ["notes.txt"]


def test_invalid_options_are_refused(filled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="say what to delete"):
        prune(filled)
    with pytest.raises(InputError, match="older-than is -1"):
        prune(filled, older_than=-1)
    with pytest.raises(InputError, match="holds nothing of backbone 'tinny'"):
        prune(filled, backbone="tinny", everything=True)
    code, _, error = gopro(capsys, Path("off"), "prune", "--all")
    assert code == 2 and "GOPRO_CACHE is off" in error
    assert counts(filled) == [1, 2, 3]
