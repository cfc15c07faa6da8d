"""Benchmark data sets in CoOp's layout, their split files, and data sets by name."""

import copy
import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gopro.data.checks.verify import verify_dataset
from gopro.data.class_names import clean_name
from gopro.data.dataset import Dataset
from gopro.data.few_shot import short_classes
from gopro.data.load_dataset import load_dataset, load_target
from gopro.data.published.catalog import CATALOG, fingerprint
from gopro.data.splits import dataset_from_entries, read_entries, save_entries
from gopro.errors import InputError
from tests.support.folders import make_folders

SPLIT = {
    "train": [["a/1.jpg", 0, "red_fox"], ["b/1.jpg", 1, "owl"]],
    "val": [],
    "test": [["a/2.jpg", 0, "red_fox"], ["b/2.jpg", 1, "owl"]],
}


def refusal(name: str, root: Path | None = None) -> str:
    with pytest.raises(InputError) as caught:
        load_dataset(name, root)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_caltech101_has_the_benchmark_s_classes_and_counts(shared: Path):
    dataset = load_dataset("caltech101", shared / "datasets")
    assert (len(dataset.train), len(dataset.val), len(dataset.test)) == (4128, 1649, 2465)
    assert len(dataset.classnames) == 100 and dataset.template == "a photo of a {}."
    assert dataset.classnames[:4] == ("face", "leopard", "motorbike", "accordion")
    assert "grand piano" in dataset.classnames and not any("_" in name for name in dataset.classnames)
    assert {s.label for s in dataset.train} == {s.label for s in dataset.test} == set(range(100))
    for sample in (dataset.train[0], dataset.val[-1], dataset.test[1234]):
        assert sample.image.open().mode == "RGB"
    assert load_dataset("caltech101", shared / "datasets" / "caltech-101") == dataset


def test_halves_and_shots_of_caltech101(shared: Path):
    dataset = load_dataset("caltech101", shared / "datasets")
    base, new = dataset.half("base"), dataset.half("new")
    assert base.classnames + new.classnames == dataset.classnames and len(base.classnames) == 50
    drawn = base.few_shot(16, seed=1)
    assert set(Counter(s.label for s in drawn.train).values()) == {16} and len(drawn.train) == 800
    assert set(Counter(s.label for s in drawn.val).values()) == {4}
    assert set(short_classes(dataset, 17).values()) == {16}  # the smallest class has 16 training images


def test_coop_s_own_split_files_are_read(shared: Path):
    files = sorted((shared / "datasets" / "splits").glob("split_zhou_*.json"))
    assert len(files) >= 7
    for file in files:
        raw = json.loads(file.read_text())
        entries = read_entries(file)
        assert entries == {part: [tuple(entry) for entry in listed] for part, listed in raw.items()}
        dataset = dataset_from_entries("any", entries, Path("images"))
        for part in ("train", "val", "test"):
            read = [(s.image.name, s.label, dataset.classnames[s.label]) for s in dataset.split(part)]
            assert read == [(f"images/{path}", label, clean_name(name)) for path, label, name in raw[part]]


def test_fingerprints_tell_coop_s_class_names_from_others(shared: Path):
    files = shared / "datasets" / "splits"
    fingerprinted = [entry for entry in CATALOG.values() if entry.names is not None]
    assert len(fingerprinted) == 7
    for entry in fingerprinted:
        assert entry.split is not None
        names = dataset_from_entries(entry.name, read_entries(files / entry.split), Path("images")).classnames
        assert fingerprint(names) == entry.names
        assert fingerprint([names[1], names[0], *names[2:]]) != entry.names
        other = Dataset(entry.name, (*names[:-1], "other"), (), (), ())
        [problem] = verify_dataset(other, replace(entry, counts=(0, 0, 0))).problems
        assert problem == f"{entry.name}: the class names or their order are not CoOp's; restore {entry.split}"


def test_a_part_of_dtd_is_a_target_under_a_name_that_says_so(tmp_path: Path):
    make_folders(tmp_path / "dtd" / "images", ("banded", "blotchy", "braided"), images=10)
    source, target = load_dataset("dtd", tmp_path), load_target("dtd", tmp_path)
    assert source.name == target.name == "dtd (part)" and target.template == "{} texture."
    assert (len(source.train), len(source.val), len(source.test)) == (15, 6, 9)
    assert len(target.test) == 30 and not target.train and not target.val
    assert [path.name for path in (tmp_path / "dtd").iterdir()] == [
        "images"
    ]  # a split would stay when the rest arrives
    make_folders(tmp_path / "dtd" / "images", [f"class {i}" for i in range(45)])
    assert "48 classes, but dtd has 47" in refusal("dtd", tmp_path)


def test_the_shared_part_of_dtd(shared: Path, tmp_path: Path):
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / "images").symlink_to(shared / "datasets" / "dtd10")
    target = load_target("dtd", tmp_path)
    assert (target.name, len(target.classnames), len(target.test)) == ("dtd (part)", 10, 600)
    assert target.test[0].image.open().mode == "RGB"


def test_a_missing_image_is_named_when_opened(tmp_path: Path):
    home = tmp_path / "caltech-101"
    (home / "101_ObjectCategories").mkdir(parents=True)
    (home / "split_zhou_Caltech101.json").write_text(json.dumps(SPLIT))
    dataset = load_dataset("caltech101", tmp_path)
    assert dataset.classnames == ("red fox", "owl")
    with pytest.raises(InputError, match=r"101_ObjectCategories/a/1\.jpg: there is no such image"):
        dataset.train[0].image.open()


def test_missing_files_are_named(tmp_path: Path):
    assert "--root" in refusal("oxford_pets")
    entry = CATALOG["oxford_pets"]
    home = tmp_path / entry.folder
    assert entry.missing(tmp_path) == [home]
    assert f"there is no {home};" in refusal("oxford_pets", tmp_path)
    home.mkdir()
    lists = [home / "annotations" / name for name in ("trainval.txt", "test.txt")]
    assert entry.missing(tmp_path) == entry.missing(home) == [home / "images", *lists]
    assert f"{home / 'images'}, {lists[0]}, {lists[1]}; " in refusal("oxford_pets", tmp_path)
    (home / "images").mkdir()
    assert entry.missing(tmp_path) == lists
    assert f"or add {entry.split} instead" in refusal("oxford_pets", tmp_path)
    (home / str(entry.split)).write_text(json.dumps(SPLIT))
    assert entry.missing(tmp_path) == [] and len(load_dataset("oxford_pets", tmp_path).train) == 2
    (home / "images").rmdir()
    assert entry.missing(tmp_path) == [home / "images"]
    assert "instead" not in refusal("oxford_pets", tmp_path)


def test_a_data_set_s_folder_is_recognised_by_its_name_or_split_file(tmp_path: Path):
    entry = CATALOG["dtd"]
    (tmp_path / "dtd" / "images").mkdir(parents=True)
    assert entry.home(tmp_path) == entry.home(tmp_path / "dtd") == tmp_path / "dtd"
    renamed = tmp_path / "textures"
    (renamed / "images").mkdir(parents=True)
    assert entry.missing(renamed) == [renamed / "dtd"]  # any folder may hold one called images
    (renamed / str(entry.split)).write_text(json.dumps(SPLIT))
    assert entry.home(renamed) == renamed and load_dataset("dtd", renamed).classnames == ("red fox", "owl")
    (tmp_path / "dtd" / "dtd").mkdir()  # as unpacking in the wrong place leaves it
    (tmp_path / "dtd" / str(entry.split)).write_text(json.dumps(SPLIT))
    assert load_dataset("dtd", tmp_path) == load_dataset("dtd", tmp_path / "dtd")


def test_unknown_names_are_refused_with_a_suggestion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert "did you mean caltech101?" in refusal("caltech-101")
    message = refusal("no/such/thing")
    assert "did you mean" not in message and "gopro data list" in message
    refusal("")
    (tmp_path / "file").touch()
    refusal("file")


def test_a_folder_is_loaded_by_path_and_from_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("a", "b"):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(4):
            Image.new("RGB", (4, 4)).save(tmp_path / "own" / name / f"{i}.png")
    dataset = load_dataset(str(tmp_path / "own"))
    assert dataset.name == "own" and dataset.classnames == ("a", "b")
    assert load_dataset("own", tmp_path) == dataset
    monkeypatch.chdir(tmp_path / "own")
    assert load_dataset(".").name == "own"


def test_saved_entries_are_read_back(tmp_path: Path):
    entries = {part: [tuple(entry) for entry in listed] for part, listed in SPLIT.items()}
    save_entries(tmp_path / "s.json", entries)  # pyright: ignore[reportArgumentType]
    assert json.loads((tmp_path / "s.json").read_text()) == SPLIT
    assert read_entries(tmp_path / "s.json") == entries
    dataset = dataset_from_entries("owls", entries, tmp_path)  # pyright: ignore[reportArgumentType]
    assert dataset.classnames == ("red fox", "owl") and dataset.val == ()
    assert [s.label for s in dataset.test] == [0, 1]
    assert list(tmp_path.iterdir()) == [tmp_path / "s.json"]


def changed(change) -> dict:
    content = copy.deepcopy(SPLIT)
    change(content)
    return content


FAULTS = {
    "the keys train, val and test": lambda c: c.pop("val"),
    "train, val and test": lambda c: c.update(extra=[]),
    "val must be a list": lambda c: c.update(val={}),
    "test is empty": lambda c: c.update(test=[]),
    r"train\[1\] is": lambda c: c["train"].__setitem__(1, ["b/1.jpg", 1]),
    r"test\[0\] is": lambda c: c["test"].__setitem__(0, "a/2.jpg"),
    r"train\[0\] is": lambda c: c["train"].__setitem__(0, ["a/1.jpg", "0", "red_fox"]),
    r"train\[0\] is .*True": lambda c: c["train"].__setitem__(0, ["a/1.jpg", True, "red_fox"]),
    "'/etc/passwd' must stay below": lambda c: c["train"][0].__setitem__(0, "/etc/passwd"),
    r"'a/\.\./\.\./x.jpg' must stay below": lambda c: c["train"][0].__setitem__(0, "a/../../x.jpg"),
    "'' must stay below": lambda c: c["train"][0].__setitem__(0, ""),
    "class name '_' is empty": lambda c: c["train"][0].__setitem__(2, "_"),
    "a/1.jpg is listed in train and again in test": lambda c: c["test"].append(["a/1.jpg", 0, "red_fox"]),
    "calls label 0 'wolf', elsewhere 'red_fox'": lambda c: c["test"][0].__setitem__(2, "wolf"),
    "gives 'owl' label 2, elsewhere 1": lambda c: c["test"][1].__setitem__(1, 2),
    "gives 'red fox' label 2, elsewhere 0": lambda c: c["test"].append(["c.jpg", 2, "red fox"]),
    "labels must be 0 to 2 without gaps; 'bat' has label 3": lambda c: c["test"].append(["c.jpg", 3, "bat"]),
    "labels must be 0 to 2 without gaps; 'cat' has label -1": lambda c: c["test"].append(["c.jpg", -1, "cat"]),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_an_invalid_split_file_is_refused_with_its_entry(tmp_path: Path, reason: str):
    file = tmp_path / "split.json"
    file.write_text(json.dumps(changed(FAULTS[reason])))
    with pytest.raises(InputError, match=reason) as caught:
        read_entries(file)
    assert str(caught.value).startswith(str(file)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"[1, 2", b"\xff\xfe\x00", b"[" * 100_000, b"null", b"[]"])
def test_other_files_are_not_split_files(tmp_path: Path, content: bytes):
    file = tmp_path / "split.json"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"split\.json: not a split file") as caught:
        read_entries(file)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_entries(tmp_path / "absent.json")


def test_names_are_cleaned_as_coop_does(shared: Path):
    for file in (shared / "datasets" / "splits").glob("split_zhou_*.json"):
        for part in json.loads(file.read_text()).values():
            for name in {name for _, _, name in part}:
                assert clean_name(name) == name.replace("_", " ")
