"""Caltech101 without the classes on which settings are chosen."""

import shutil
from pathlib import Path

import pytest

from gopro.data.embedded.photos import photos_dataset
from gopro.data.load_dataset import load_dataset
from gopro.data.splits import read_entries, save_entries
from tools.build_photos import CLASSES, SPLIT_FILE
from tools.untuned_caltech101 import UNTUNED, without_photos

CALTECH101 = Path(__file__).resolve().parents[3] / "shared" / "datasets" / "caltech-101"


def test_the_rest_keeps_its_order_and_splits() -> None:
    parts = ("train", "val", "test")
    entries = {part: [(f"{name}/{part}.jpg", i, name) for i, name in enumerate(("a", "rhino", "b"))] for part in parts}
    rest = {part: [(f"a/{part}.jpg", 0, "a"), (f"b/{part}.jpg", 1, "b")] for part in parts}
    assert without_photos(entries) == rest


@pytest.mark.skipif(not CALTECH101.is_dir(), reason=f"no {CALTECH101}: it holds the data set that this test runs on")
def test_it_is_a_data_set_without_the_packaged_classes(tmp_path: Path) -> None:
    shutil.copy(CALTECH101 / SPLIT_FILE, tmp_path)
    (tmp_path / "101_ObjectCategories").symlink_to(CALTECH101 / "101_ObjectCategories")
    save_entries(tmp_path / UNTUNED, without_photos(read_entries(tmp_path / SPLIT_FILE)))
    rest, whole = load_dataset(str(tmp_path / UNTUNED)), load_dataset("caltech101", tmp_path)
    assert rest.name == "caltech101-untuned" and len(rest.classnames) == 70 and rest.template == whole.template
    photos = {*photos_dataset().classnames}
    assert photos == {*CLASSES.values()} and not photos & {*rest.classnames}
    assert list(rest.classnames) == [name for name in whole.classnames if name in rest.classnames]
    assert {in_folder(sample) for sample in rest.test} < {in_folder(sample) for sample in whole.test}


def in_folder(sample) -> str:
    return sample.image.name.rpartition("101_ObjectCategories/")[2]
