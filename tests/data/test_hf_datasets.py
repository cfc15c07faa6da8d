"""Data sets of Hugging Face's `datasets`: saved on disk, or by name from files that stand in for the Hub."""

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gopro.data.dataset import Dataset
from gopro.data.hf_datasets import hf_dataset
from gopro.data.images.image_file import ImageFile
from gopro.data.load_dataset import load_dataset, load_target
from gopro.errors import InputError
from tests.support.folders import make_folders

datasets = pytest.importorskip("datasets", reason="the extra datasets is not installed")


@pytest.fixture(autouse=True)
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()


def table(labels: list[int], names: list[str] | None = None, size: int = 8, **columns: list[object]):
    """Return a table of PNG images, whose shade is their row."""
    cells = []
    for i in range(len(labels)):
        Image.new("RGB", (size, size), (i, 0, 0)).save(file := io.BytesIO(), "PNG")
        cells.append({"bytes": file.getvalue(), "path": None})
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=names or ["owl", "red_fox"])}
    features |= {name: datasets.Value("string") for name in columns}
    return datasets.Dataset.from_dict(
        {"image": cells, "label": labels, **columns}, features=datasets.Features(features)
    )


def saved(folder: Path, **splits: object) -> Path:
    datasets.DatasetDict(splits).save_to_disk(str(folder))
    return folder


def counts(dataset: Dataset) -> tuple[int, int, int]:
    return len(dataset.train), len(dataset.val), len(dataset.test)


def test_a_saved_data_set_is_loaded_with_its_splits(tmp_path: Path):
    folder = saved(tmp_path / "birds", train=table([0, 1, 0]), validation=table([1]), test=table([1, 0]))
    dataset = load_dataset(str(folder))
    assert dataset.name == "birds" and dataset.classnames == ("owl", "red fox") and counts(dataset) == (3, 1, 2)
    assert [sample.label for sample in dataset.train] == [0, 1, 0]
    assert [sample.image.open().getpixel((0, 0)) for sample in dataset.train] == [(i, 0, 0) for i in range(3)]
    assert counts(load_target(str(folder))) == (0, 0, 2)


def test_an_image_has_the_digest_of_its_file_and_reaches_other_processes(tmp_path: Path):
    Image.new("RGB", (8, 8), (1, 0, 0)).save(tmp_path / "1.png")
    image = load_dataset(str(saved(tmp_path / "birds", train=table([0, 1]), test=table([0, 1])))).train[1].image
    assert image.digest() == ImageFile(tmp_path / "1.png").digest()
    other = pickle.loads(pickle.dumps(image))
    assert other == image and other.digest() == image.digest() and other.open().size == (8, 8)


def test_images_are_opened_at_levels(tmp_path: Path):
    Image.fromarray(np.array([[0, 4095]], np.uint16)).save(file := io.BytesIO(), "PNG")
    deep = {"image": [{"bytes": file.getvalue(), "path": None}] * 2, "label": ["a", "b"]}
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    part = datasets.Dataset.from_dict(deep, features=features)
    folder = saved(tmp_path / "deep", train=part, test=part)
    [dark, bright] = [load_dataset(str(folder), levels=levels).train[0].image for levels in (None, (0, 4095))]
    assert (dark.open().getpixel((1, 0)), bright.open().getpixel((1, 0))) == ((16,) * 3, (255,) * 3)
    assert dark.digest() != bright.digest()


def test_a_single_split_is_divided_as_a_folder_is(tmp_path: Path):
    table([0, 1] * 10).save_to_disk(str(tmp_path / "birds"))
    dataset = load_dataset(str(tmp_path / "birds"))
    assert counts(dataset) == (10, 4, 6) and counts(load_target(str(tmp_path / "birds"))) == (0, 0, 20)
    assert load_dataset(str(tmp_path / "birds")) == dataset


def test_validation_images_are_tested_where_there_are_no_others(tmp_path: Path):
    folder = saved(tmp_path / "birds", train=table([0, 1]), valid=table([1]), unsupervised=table([0]))
    with pytest.warns(UserWarning) as caught:
        assert counts(load_dataset(str(folder))) == (2, 0, 1)
    texts = [str(warning.message) for warning in caught]
    assert any("its validation images are the test images" in text for text in texts)
    assert any("the split unsupervised is neither train, validation nor test" in text for text in texts)


def test_rows_without_a_label_and_names_without_rows_are_left_out(tmp_path: Path):
    rows = table([0, -1, 2], ["owl", "auk", "fox"])
    with pytest.warns(UserWarning, match="1 images of train have no label; left out"):
        dataset = load_dataset(str(saved(tmp_path / "birds", train=rows, test=table([2, 0], ["owl", "auk", "fox"]))))
    assert dataset.classnames == ("owl", "fox") and [sample.label for sample in dataset.train] == [0, 1]


def test_a_data_set_by_name_with_the_column_of_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A folder in the layout of a repository stands in for the Hub, which `datasets` loads the same way."""
    make_folders(tmp_path / "org" / "birds", ("train/owl", "train/fox", "test/owl", "test/fox"), images=3)
    monkeypatch.chdir(tmp_path)
    dataset = load_dataset("hf:org/birds")
    assert dataset.name == "org/birds" and dataset.classnames == ("fox", "owl") and counts(dataset) == (6, 0, 6)
    assert dataset.train[0].image.name == "hf:org/birds/train/0" and dataset.train[0].image.open().size == (8, 8)
    assert counts(load_target("hf:org/birds")) == (0, 0, 6)
    assert counts(hf_dataset("hf:org/birds[label=label]")) == (6, 0, 6)


def refusal(name: Path | str) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(str(name))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_has_no_images_or_labels_is_refused(tmp_path: Path):
    part = table([0, 1])
    Image.new("RGB", (8, 8)).save(file := tmp_path / "other.png")
    for name, faulty, expected in [
        ("no-image", part.remove_columns("image"), "has no column of images"),
        ("two", table([0, 1], other=[str(file)] * 2).cast_column("other", datasets.Image()), "the columns image, o"),
        ("no-label", part.remove_columns("label"), "has no column of labels, only image; write hf:NAME"),
        ("numbers", part.cast_column("label", datasets.Value("int64")), "has no column of labels"),
        ("alike", table([0, 1], ["red_fox", "Red fox"]), "'red_fox' and 'Red fox' give the same class name"),
    ]:
        assert expected in refusal(saved(tmp_path / name, train=faulty, test=faulty)), name
    coarse = part.rename_column("label", "fine").add_column("coarse", [0, 0])
    coarse = coarse.cast_column("coarse", datasets.ClassLabel(names=["bird"]))
    assert "the columns fine, coarse hold labels" in refusal(saved(tmp_path / "both", train=coarse, test=coarse))
    (tmp_path / "no-image" / "train" / "state.json").unlink()
    assert "cannot be loaded" in refusal(tmp_path / "no-image")
    assert "hf:nobody/nothing: cannot be loaded" in refusal("hf:nobody/nothing")
    assert "write hf:NAME, or hf:NAME[config=CONFIG,label=COLUMN]" in refusal("hf:a[split=x]")


def test_without_the_library_a_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    assert "needs the library datasets: pip install '.[datasets]'" in refusal("hf:org/birds")
