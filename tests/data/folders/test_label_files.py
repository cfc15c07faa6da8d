"""Labels in files: a CSV, CoOp's split files over flat folders, and metadata.csv of Hugging Face's image folders."""

import json
from collections import Counter
from pathlib import Path

import pytest

from gopro.data.dataset import Dataset
from gopro.data.folders.label_files import find_label_file, label_file_dataset, label_file_target
from gopro.data.load_dataset import load_dataset, load_target
from gopro.errors import InputError
from tests.support.folders import make_folders

NAMES = ("red fox", "snowy owl")


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder with 20 images in one folder, `0.png` to `19.png`; the even ones are foxes."""
    return make_folders(tmp_path / "flat", ("images",), images=20)


def lines(count: int = 20) -> list[str]:
    return [f"images/{i}.png,{'snowy_owl' if i % 2 else 'red_fox'}" for i in range(count)]


def write(file: Path, *rows: str, header: str = "path,label") -> Path:
    file.write_text("\n".join((header, *rows)) + "\n", encoding="utf-8")
    return file


def by_part(dataset: Dataset) -> dict[str, set[tuple[int, int]]]:
    """Return the numbers and the labels of the images of each part."""
    parts = {"train": dataset.train, "val": dataset.val, "test": dataset.test}
    return {
        part: {(int(Path(sample.image.name).stem), sample.label) for sample in samples}
        for part, samples in parts.items()
    }


def refusal(file: Path) -> str:
    with pytest.raises(InputError) as caught:
        label_file_dataset(file)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)
    return str(caught.value)


def test_a_csv_is_a_data_set_with_a_split_drawn_once(flat: Path):
    file = write(flat / "birds.csv", *lines())
    dataset = load_dataset(str(file))
    assert dataset.name == "birds" and dataset.classnames == NAMES
    parts = by_part(dataset)
    assert [len(parts[part]) for part in ("train", "val", "test")] == [10, 4, 6]
    assert set.union(*parts.values()) == {(i, i % 2) for i in range(20)}
    assert all(sample.image.open().size == (8, 8) for sample in dataset.test)
    assert (flat / "split_gopro_birds.json").is_file()
    write(file, *reversed(lines()))
    assert by_part(load_dataset(str(file))) == parts


def test_rows_added_later_move_no_other(flat: Path):
    file = write(flat / "birds.csv", *lines(12))
    before = by_part(label_file_dataset(file))
    write(file, *lines(19), "images/19.png,auk")
    with pytest.warns(UserWarning, match="birds.csv: 8 images are new; dealt .* to train"):
        dataset = label_file_dataset(file)
    after = by_part(dataset)
    assert dataset.classnames == (*NAMES, "auk"), "a new class moved the labels of the others"
    assert all(before[part] <= after[part] for part in before) and sum(map(len, after.values())) == 20


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_columns_are_found_by_their_names(flat: Path, separator: str):
    rows = [f"{'Training' if i < 12 else 'valid' if i < 15 else 'test'},x,images/{i}.png,{i % 2}" for i in range(20)]
    text = "\n".join(["\ufeffSplit,width,File Name,Class", *rows, ""]).replace(",", separator)
    (flat / "birds.csv").write_text(text.replace("\n", "\r\n"), encoding="utf-8")
    parts = by_part(label_file_dataset(flat / "birds.csv"))
    assert parts == {
        "train": {(i, i % 2) for i in range(12)},
        "val": {(i, i % 2) for i in range(12, 15)},
        "test": {(i, i % 2) for i in range(15, 20)},
    }
    assert not list(flat.glob("split_*"))


@pytest.mark.parametrize("name", ["labels.csv", "metadata.csv"])
def test_a_folder_may_hold_its_csv(flat: Path, name: str):
    file = write(flat / name, *lines(), header="file_name,label")
    dataset = load_dataset(str(flat))
    assert dataset.name == load_dataset(str(file)).name == "flat" and dataset.classnames == NAMES
    write(file, *lines(), header="image,width")
    assert find_label_file(flat) is None


def test_paths_may_be_absolute_or_of_windows(flat: Path):
    rows = [f"{flat}/images/0.png,a", f"{flat}/images/1.png,b", "images\\2.png,a", "./images/3.png,b"]
    assert by_part(label_file_target(write(flat / "birds.csv", *rows)))["test"] == {(0, 0), (1, 1), (2, 0), (3, 1)}


def test_a_target_has_all_images_or_those_of_test(flat: Path):
    file = write(flat / "birds.csv", *lines())
    assert len(load_target(str(file)).test) == 20 and not list(flat.glob("split_*"))
    rows = [f"{line},{'test' if i > 15 else 'train'}" for i, line in enumerate(lines())]
    target = load_target(str(write(file, *rows, header="path,label,split")))
    assert by_part(target) == {"train": set(), "val": set(), "test": {(i, i % 2) for i in range(16, 20)}}
    assert target.classnames == NAMES
    alone = write(flat / "test.csv", *(f"{line},test" for line in lines()), header="path,label,split")
    assert len(load_target(str(alone)).test) == 20
    assert "has only images of test, none to train on. To test a run on it: gopro eval RUN" in refusal(alone)


def test_validation_images_are_tested_where_there_are_no_others(flat: Path):
    rows = [f"{line},{'val' if i > 15 else 'train'}" for i, line in enumerate(lines())]
    file = write(flat / "birds.csv", *rows, header="path,label,split")
    with pytest.warns(UserWarning, match="the images of val are the test images"):
        dataset = label_file_dataset(file)
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (16, 0, 4)


@pytest.mark.parametrize(
    ("rows", "header", "expected"),
    [
        (["images/0.png,a"], "id,label", "has no column path; its first line must name the columns: path,label"),
        (["images/1.png,b"], "images/0.png,a", "has no column path and no column label"),
        ([], "path,label", "has no rows"),
        (["images/0.png,a", "images/1.png,"], "path,label", "line 3: has no label"),
        (["images/0.png,a", "images/1.png"], "path,label", "line 3: has no label"),
        (["images/0.png,__"], "path,label", "line 2: label '__' gives an empty class name"),
        (["images/0.png,a", "images/0.png,b"], "path,label", "line 3: images/0.png is in line 2 too"),
        (["../0.png,a"], "path,label", "line 2: ../0.png must lie below"),
        (["/etc/0.png,a"], "path,label", "line 2: /etc/0.png must lie below"),
        (["images/0.png,Cat", "images/1.png,cat"], "path,label", "'Cat' and 'cat' give the same class name"),
        (["images/0.png,a,fold1"], "path,label,split", "line 2: split is 'fold1'; write train, val or test"),
        (["images/0.png,a,train", "images/1.png,b,train"], "path,label,split", "every split is train"),
        (["images/0.png,a", "images/1.png,a"], "path,label", "only one class"),
        (["photos/0.png,a", "photos/1.png,b"], "path,label", "photos/0.png is not there"),
    ],
)
def test_a_faulty_csv_is_refused_with_the_line(flat: Path, rows: list[str], header: str, expected: str):
    assert expected in refusal(write(flat / "birds.csv", *rows, header=header))


def test_a_csv_that_is_not_utf8_is_refused(flat: Path):
    (flat / "birds.csv").write_bytes("path,label\nimages/0.png,käuzchen".encode("latin-1"))
    assert "save it as CSV UTF-8" in refusal(flat / "birds.csv")


def split(prefix: str = "images/") -> str:
    entries = [[f"{prefix}{i}.png", i % 2, NAMES[i % 2]] for i in range(20)]
    return json.dumps({"train": entries[:12], "val": [], "test": entries[12:]})


@pytest.mark.parametrize("name", ["split_zhou_Birds.json", "split_gopro.json"])
@pytest.mark.parametrize("prefix", ["images/", ""])
def test_a_split_file_labels_a_flat_folder(flat: Path, name: str, prefix: str):
    """In CoOp, paths start from the folder of images beside the file."""
    (flat / name).write_text(split(prefix))
    for data in (flat, flat / name):
        dataset = load_dataset(str(data))
        assert dataset.name == "flat" and dataset.classnames == NAMES
        assert by_part(dataset)["test"] == {(i, i % 2) for i in range(12, 20)}
        assert dataset.train[0].image.open().size == (8, 8)
        assert len(load_target(str(data)).test) == 8


def test_a_split_file_over_class_folders_is_read_as_before(tmp_path: Path):
    root = make_folders(tmp_path / "own", ("cat", "dog"))
    before = load_dataset(str(root))
    assert find_label_file(root) is None
    assert Counter(sample.label for sample in before.train) == {0: 2, 1: 2}
    (root / "split_gopro.json").unlink()
    (root / "split_zhou_a.json").write_text("{}")
    (root / "split_zhou_b.json").write_text("{}")
    with pytest.raises(InputError, match=r"holds split_zhou_a.json, split_zhou_b.json; give one of them as --data"):
        load_dataset(str(root))


def test_a_split_file_counts_before_a_csv(flat: Path):
    write(flat / "labels.csv", *lines())
    assert find_label_file(flat) == flat / "labels.csv"
    (flat / "split_gopro.json").write_text(split())
    assert find_label_file(flat) == flat / "split_gopro.json" and len(load_dataset(str(flat)).train) == 12
