"""What lies beside images: notes and labels, folders of runs and of sorted images, HEIC."""

import warnings
from pathlib import Path

import pytest
from PIL import Image

from gopro.data.folders import find_images
from gopro.data.folders.find_images import class_folders, files_below, images_by_class
from gopro.data.folders.sorted_folders import MARK, create_sorted_folder
from gopro.errors import InputError
from tests.support.folders import make_folders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return make_folders(tmp_path / "root", ("cat", "dog"), images=2)


def write_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("config.json", "learned.safetensors", "report.png"):
        (folder / name).write_text("x")


IMAGES = {"cat": ["cat/0.png", "cat/1.png"], "dog": ["dog/0.png", "dog/1.png"]}


def test_notes_and_labels_are_passed_over(root: Path):
    for name in ("0.json", "0.TXT", "0.xml", "labels.csv"):
        (root / "cat" / name).write_text("x")
    assert images_by_class(root) == IMAGES


@pytest.mark.parametrize("run", ["runs/mine", "mine", "models/2026/mine", "cat/mine"])
def test_a_run_is_no_class(root: Path, run: str):
    write_run(root / run)
    with pytest.warns(UserWarning, match="holds runs rather than images of a class; passed over") as caught:
        assert images_by_class(root) == IMAGES
    assert str(root / run.split("/")[0]) in str(caught[0].message)


def test_a_folder_runs_of_another_tool_is_no_class(root: Path):
    make_folders(root / "runs", ("detect/train",))
    with pytest.warns(UserWarning, match="runs: holds runs"):
        assert list(class_folders(root)) == ["cat", "dog"]


def test_a_class_may_be_called_runs_and_hold_a_config(root: Path):
    make_folders(root, ("runs", "config"))
    (root / "config" / "config.json").write_text("x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert list(images_by_class(root)) == ["cat", "config", "dog", "runs"]


def test_the_folder_itself_may_be_a_run(tmp_path: Path):
    write_run(tmp_path / "mine")
    assert tmp_path / "mine" / "report.png" in list(files_below(tmp_path / "mine"))


@pytest.mark.parametrize("place", ["sorted", "cat/sorted"])
def test_a_folder_that_images_were_sorted_into_is_no_class(root: Path, place: str):
    create_sorted_folder(root / place)
    make_folders(root / place, ("cat", "dog"))
    with pytest.warns(UserWarning, match="sorted: holds images that gopro predict sorted") as caught:
        assert images_by_class(root) == IMAGES
    assert f"remove {root / place / MARK}" in str(caught[0].message)
    assert list(images_by_class(root / place)) == ["cat", "dog"]  # a person may train on the folder itself
    (root / place / MARK).unlink()
    assert images_by_class(root) != IMAGES


def test_all_errors_are_reported_at_once(root: Path):
    make_folders(root, ("wolf", "Cat", "__"), images=1)
    (root / "zebra").mkdir()
    (root / "wolf" / "clip.mp4").write_text("x")
    (root / "dog" / "raw.cr2").write_text("x")
    Image.new("RGB", (8, 8)).save(root / "outside.png")
    found: list[InputError] = []
    assert images_by_class(root, on_error=found.append) == {
        "Cat": ["Cat/0.png"],
        "dog": IMAGES["dog"],
        "wolf": ["wolf/0.png"],
    }
    text = "\n".join(map(str, found))
    for part in (
        "clip.mp4: not an image",
        "raw.cr2: not an image",
        "outside.png: an image outside",
        "zebra: no images",
    ):
        assert part in text
    assert "folders Cat and cat give the same class name" in text and "empty class name" in text and len(found) == 6


def test_heic_without_the_plugin_is_refused_before_training(root: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("IMG_1.HEIC", "IMG_2.heif"):
        (root / "cat" / name).write_bytes(b"x")
    monkeypatch.setattr(find_images, "reads_heif", lambda: False)
    with pytest.raises(
        InputError, match=r"2 HEIC images \(cat/IMG_1.HEIC, cat/IMG_2.heif\) need pillow-heif: pip inst"
    ):
        images_by_class(root)
    monkeypatch.setattr(find_images, "reads_heif", lambda: True)
    assert images_by_class(root)["cat"] == [*IMAGES["cat"], "cat/IMG_1.HEIC", "cat/IMG_2.heif"]
