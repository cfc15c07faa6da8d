"""The photographs in the package, and the tool that builds them."""

import io
import warnings
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from PIL import Image, features

from gopro.data.dataset import Dataset, SplitName
from gopro.data.embedded.photos import FOLDER, PHOTOS, photos_dataset
from gopro.data.folders.class_folders import folder_dataset
from gopro.data.load_dataset import find_folder, is_packaged, load_dataset
from gopro.data.splits import read_entries
from tools import build_photos
from tools.build_photos import CLASSES, COUNTS, EXCLUDED, IMAGES, LIBWEBP, SHORT_SIDE, SPLIT_FILE, choose, compress


@pytest.fixture(scope="module")
def photos() -> Dataset:
    return photos_dataset()


@pytest.fixture(scope="module")
def caltech101(shared: Path) -> Path:
    return shared / "datasets" / "caltech-101"


def packaged(split: str, name: str, original: Path) -> Path:
    return FOLDER / split / name.replace(" ", "_") / f"{original.stem}.webp"


def test_every_class_has_as_many_images_as_every_other(photos: Dataset):
    assert photos.name == PHOTOS
    assert list(photos.classnames) == sorted(CLASSES.values())
    for split, each in COUNTS.items():
        assert np.bincount([s.label for s in photos.split(split)]).tolist() == [each] * len(CLASSES)
    halves = [photos.half(half).few_shot(8, seed=1) for half in ("base", "new")]
    assert [len(half.train) for half in halves] == [8 * len(half.classnames) for half in halves]


def test_images_have_the_same_names_wherever_the_package_is(photos: Dataset):
    for split in COUNTS:
        for sample in photos.split(split):
            top, part, folder, file = PurePosixPath(sample.image.name).parts
            assert (top, part, folder.replace("_", " ")) == (PHOTOS, split, photos.classnames[sample.label])
            assert (FOLDER / part / folder / file).is_file()
    sample = photos.test[123]
    assert sample.image.open().mode == "RGB"
    assert sample.image.digest() == folder_dataset(FOLDER).test[123].image.digest()


def test_the_images_are_small_and_attributed(photos: Dataset):
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6e6
    assert {path.suffix for path in files if path.parent != FOLDER} == {".webp"}
    for path in files[::20]:
        if path.suffix == ".webp":
            with Image.open(path) as image:
                assert min(image.size) <= SHORT_SIDE, path
    text = (FOLDER / "ATTRIBUTION.md").read_text(encoding="utf-8")
    for part in ("Caltech 101", "Li", "Andreeto", "Ranzato", "Perona", "https://creativecommons.org/licenses/by/4.0/"):
        assert part in text
    images = sum(len(photos.split(split)) for split in COUNTS)
    assert f"{images} images of {len(photos.classnames)} of its classes" in text and f"{SHORT_SIDE} pixels" in text
    renamed = {folder: name for folder, name in CLASSES.items() if folder.replace("_", " ") != name}
    assert all(f"`{folder}` is {name}" in " ".join(text.split()) for folder, name in renamed.items())


def test_the_build_chooses_the_packaged_images_from_the_same_splits(caltech101: Path):
    entries = read_entries(caltech101 / SPLIT_FILE)
    split_of = {path: split for split, listed in entries.items() for path, _, _ in listed}
    chosen = list(choose(caltech101 / IMAGES, entries))
    assert {packaged(*entry) for entry in chosen} == set(FOLDER.glob("*/*/*.webp"))
    for split, _, file in chosen:
        path = file.relative_to(caltech101 / IMAGES).as_posix()
        assert split_of[path] == split and path not in EXCLUDED


@pytest.mark.parametrize("split", COUNTS)
def test_the_build_gives_the_packaged_bytes(caltech101: Path, split: SplitName):
    folders = {name.replace(" ", "_"): folder for folder, name in CLASSES.items()}
    files = sorted((FOLDER / split).glob("*/*.webp"))[::40]
    for file in files:
        original = caltech101 / IMAGES / folders[file.parent.name] / f"{file.stem}.jpg"
        content = compress(original)
        assert content == file.read_bytes() or features.version("webp") != LIBWEBP, file
        with Image.open(file) as stored, Image.open(io.BytesIO(content)) as made:
            assert stored.size == made.size
            difference = np.abs(np.asarray(stored.convert("RGB"), int) - np.asarray(made.convert("RGB"), int))
        assert difference.mean() < 2, f"{file} is not made of {original}"


def test_a_photograph_that_occurs_twice_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    (tmp_path / "owl").mkdir()
    for number in range(6):
        image = Image.fromarray(rng.integers(0, 256, (4, 4, 3), np.uint8)).resize((300, 260), Image.Resampling.NEAREST)
        image.save(tmp_path / "owl" / f"{number}.jpg")
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "owl" / f"{number}-mirrored.jpg", quality=60)
    paths = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.jpg"))
    monkeypatch.setattr(build_photos, "CLASSES", {"owl": "owl"})
    monkeypatch.setattr(build_photos, "COUNTS", {"train": 3, "test": 3})
    both = [(path, 0, "owl") for path in paths]
    chosen = list(choose(tmp_path, {"train": both, "val": [], "test": both}))
    assert sorted(file.stem[0] for _, _, file in chosen) == list("012345")
    monkeypatch.setattr(build_photos, "COUNTS", {"train": 3, "test": 4})
    with pytest.raises(SystemExit, match="only 3 different images in test, not 4"):
        list(choose(tmp_path, {"train": both, "val": [], "test": both}))


def test_compression_scales_down_and_never_up(tmp_path: Path):
    for size, expected in [((600, 448), (300, 224)), ((100, 90), (100, 90))]:
        Image.new("RGB", size, "teal").save(tmp_path / "image.png")
        (tmp_path / "image.webp").write_bytes(compress(tmp_path / "image.png"))
        with Image.open(tmp_path / "image.webp") as image:
            assert (image.format, image.size) == ("WEBP", expected)


def test_a_folder_called_photos_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        for split in ("train", "test"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            Image.new("RGB", (8, 8)).save(tmp_path / "photos" / split / name / "1.png")
    with pytest.warns(UserWarning, match=r"for the folder photos write \./photos"):
        assert len(load_dataset("photos").classnames) == len(CLASSES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert load_dataset("./photos").classnames == ("one", "two")
    assert find_folder("photos") is None and is_packaged("photos") and not is_packaged("./photos")
