"""The catalog's data sets: CoOp's real split files, splits drawn from annotations, ImageNet and its variants."""

import csv
import json
import pickle
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from gopro.data import splits
from gopro.data.dataset import Dataset, Sample
from gopro.data.published.catalog import CATALOG, Benchmark
from gopro.data.splits import Entry, split_in_three, split_off_val
from gopro.errors import InputError

PARTS = ("train", "val", "test")
Raw = dict[str, list[list]]


def place(path: Path, content: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 4)).save(path)


def small(name: str, classes: int, images: int = 0) -> Benchmark:
    """Return the entry with smaller numbers of classes and images."""
    return replace(CATALOG[name], classes=classes, counts=(images, 0, 0))


def listed(samples: tuple[Sample, ...], folder: Path) -> list[tuple[str, int]]:
    return [(s.image.name.removeprefix(f"{folder.as_posix()}/"), s.label) for s in samples]


def counts(dataset: Dataset) -> tuple[int, ...]:
    return tuple(len(getattr(dataset, part)) for part in PARTS)


def refusal(entry: Benchmark, root: Path) -> str:
    with pytest.raises(InputError) as caught:
        entry.load(root)
    assert "\n" not in str(caught.value) and str(root) in str(caught.value)
    return str(caught.value)


# ---- the catalog


def test_the_catalog_has_the_data_sets_of_the_published_tables(shared: Path):
    def rows(name: str) -> list[dict[str, str]]:
        return list(csv.DictReader((shared / "reference" / f"published_{name}.csv").read_text().splitlines()))

    named = {row["dataset"] for row in rows("base_to_new")}
    named |= (rows("cross_dataset")[0].keys() | rows("domain_generalization")[0].keys()) - {"method"}
    assert named - {"average"} == set(CATALOG) and len(CATALOG) == 15


def test_the_documented_table_matches_the_catalog():
    table = (Path(__file__).parents[3] / "docs" / "datasets.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `(\S+)` \| (\d+) \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \| (.+) \|$", table, re.M)
    assert [row[0] for row in rows] == list(CATALOG)
    for name, folder, classes, *images, template in rows:
        entry, numbers = CATALOG[name], tuple(int(count.replace(",", "")) for count in images)
        assert (folder, int(classes), numbers, template) == (entry.folder, entry.classes, entry.counts, entry.template)
        assert f"\n    {folder}/" in table and (entry.split or "") in table


@pytest.mark.parametrize("entry", CATALOG.values(), ids=CATALOG.keys())
def test_entries_are_consistent(entry: Benchmark):
    assert entry.template.count("{}") == 1 and entry.template.endswith(".")
    if entry.split:
        parts = [part / sum(entry.counts) for part in entry.counts]
        official = entry.counts[1] / sum(entry.counts[:2])  # of train and val
        assert parts == pytest.approx([0.5, 0.2, 0.3], abs=0.01) or official == pytest.approx(0.2, abs=0.01)
        assert entry.own_split == entry.split.replace("zhou", "gopro") != entry.split
    else:
        assert entry.own_split is None


# ---- CoOp's own split files

REAL = ("oxford_pets", "oxford_flowers", "stanford_cars", "dtd", "eurosat", "ucf101")


def real(name: str, shared: Path) -> tuple[Raw, list[str]]:
    """Read CoOp's split file, and its class names by label."""
    raw: Raw = json.loads((shared / "datasets" / "splits" / str(CATALOG[name].split)).read_text())
    names = {label: written for part in raw.values() for _, label, written in part}
    return raw, [names[label] for label in range(len(names))]


@pytest.mark.parametrize("name", REAL)
def test_coop_s_split_file_is_used(name: str, shared: Path, tmp_path: Path):
    entry, (raw, names) = CATALOG[name], real(name, shared)
    home = tmp_path / entry.folder
    for folder in entry.needs or (entry.images,):
        (home / folder).mkdir(parents=True)
    for part in PARTS:
        image(home / entry.images / raw[part][-1][0])
    place(home / str(entry.own_split), "{ no split file")  # not looked at: CoOp's wins
    place(home / str(entry.split), json.dumps(raw))
    dataset = entry.load(tmp_path)
    assert dataset.name == name and counts(dataset) == entry.counts
    assert dataset.classnames == tuple(written.replace("_", " ") for written in names)
    assert len(dataset.classnames) == entry.classes
    for part in PARTS:
        samples = getattr(dataset, part)
        assert listed(samples, home / entry.images) == [(path, label) for path, label, _ in raw[part]]
        assert samples[-1].image.open().size == (4, 4)
        with pytest.raises(InputError, match=re.escape(raw[part][0][0])):
            samples[0].image.open()
    assert entry.load(home) == dataset


# ---- splits drawn from the original annotations, which are written as the makers wrote them, out of CoOp's split files


def write_pets(home: Path, raw: Raw) -> None:
    def lines(*parts: str) -> str:
        return "".join(f"{Path(path).stem} {label + 1} 2 7\n" for part in parts for path, label, _ in raw[part])

    (home / "images").mkdir(parents=True)
    place(home / "annotations/trainval.txt", lines("train", "val"))
    place(home / "annotations/test.txt", lines("test"))


def write_cars(home: Path, raw: Raw) -> None:
    names = {label: name for part in raw.values() for _, label, name in part}
    year_last = [" ".join([*names[i].split(" ")[1:], names[i].split(" ")[0]]) for i in range(len(names))]

    def save(file: Path, *parts: str) -> None:
        rows = [(Path(path).name, label + 1) for part in parts for path, label, _ in raw[part]]
        savemat(file, {"annotations": np.array([rows], dtype=[("fname", object), ("class", object)])})

    (home / "devkit").mkdir(parents=True)
    save(home / "devkit/cars_train_annos.mat", "train", "val")
    save(home / "cars_test_annos_withlabels.mat", "test")
    savemat(home / "devkit/cars_meta.mat", {"class_names": np.array([year_last], dtype=object)})
    for folder in ("cars_train", "cars_test"):
        (home / folder).mkdir()


def write_flowers(home: Path, raw: Raw) -> None:
    label_of = {path: label for part in raw.values() for path, label, _ in part}
    names = {label: name for part in raw.values() for _, label, name in part}
    (home / "jpg").mkdir(parents=True)
    savemat(home / "imagelabels.mat", {"labels": np.array([[label_of[path] + 1 for path in sorted(label_of)]])})
    place(home / "cat_to_name.json", json.dumps({str(label + 1): name for label, name in names.items()}))


def write_ucf(home: Path, raw: Raw) -> None:
    names = {name.replace("_", ""): label + 1 for part in raw.values() for _, label, name in part}

    def videos(*parts: str) -> list[str]:
        paths = [Path(path) for part in parts for path, _, _ in raw[part]]
        return [f"{path.parent.name.replace('_', '')}/{path.stem}.avi" for path in paths]

    (home / "UCF-101-midframes").mkdir(parents=True)
    lists = home / "ucfTrainTestlist"
    place(lists / "classInd.txt", "".join(f"{label} {name}\r\n" for name, label in sorted(names.items())))
    train = "".join(f"{video} {names[video.split('/')[0]]}\r\n" for video in videos("train", "val"))
    place(lists / "trainlist01.txt", train)
    place(lists / "testlist01.txt", "".join(f"{video}\r\n" for video in videos("test")))


def write_dtd(home: Path, raw: Raw) -> None:
    for folder in {Path(path).parent for part in raw.values() for path, _, _ in part}:
        (home / "images" / folder).mkdir(parents=True)
    for part in raw.values():
        for path, _, _ in part:
            (home / "images" / path).touch()
    (home / "images" / "waffled" / ".directory").touch()  # as in the real archive


WRITERS: dict[str, Callable[[Path, Raw], None]] = {
    "oxford_pets": write_pets,
    "stanford_cars": write_cars,
    "oxford_flowers": write_flowers,
    "ucf101": write_ucf,
    "dtd": write_dtd,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_a_split_drawn_from_annotations_matches_coop_s_in_all_but_the_draw(name: str, shared: Path, tmp_path: Path):
    entry, (raw, names) = CATALOG[name], real(name, shared)
    home = tmp_path / entry.folder
    WRITERS[name](home, raw)
    assert entry.missing(tmp_path) == []
    dataset = entry.load(tmp_path)
    assert dataset.classnames == tuple(written.replace("_", " ") for written in names)
    drawn = {part: listed(getattr(dataset, part), home / entry.images) for part in PARTS}
    theirs = {part: [(path, label) for path, label, _ in raw[part]] for part in PARTS}
    for part in PARTS:  # CoOp's proportions in every class
        assert Counter(label for _, label in drawn[part]) == Counter(label for _, label in theirs[part])
    assert sorted(chain(*drawn.values())) == sorted(chain(*theirs.values()))
    assert sorted(drawn["train"]) != sorted(theirs["train"])
    assert (drawn["test"] == theirs["test"]) == (name not in ("dtd", "oxford_flowers"))  # where it is official
    written = json.loads((home / str(entry.own_split)).read_text())
    assert written == {part: [[path, label, names[label]] for path, label in drawn[part]] for part in PARTS}
    # from now on it counts, with or without the annotations
    for file in entry.reads:
        (home / file).unlink()
    assert entry.load(home) == dataset and entry.missing(home) == []
    place(home / str(entry.split), json.dumps(raw))
    assert listed(entry.load(home).train, home / entry.images) == theirs["train"]


def test_a_split_drawn_from_caltech101_s_images(shared: Path, tmp_path: Path):
    entry, (raw, names) = CATALOG["caltech101"], real("caltech101", shared)
    home = tmp_path / entry.folder
    home.mkdir()
    (home / entry.images).symlink_to(shared / "datasets" / entry.folder / entry.images)
    dataset = entry.load(tmp_path)
    assert counts(dataset) == entry.counts == tuple(len(raw[part]) for part in PARTS)
    assert dataset.classnames == tuple(written.replace("_", " ") for written in names)
    for part in PARTS:
        samples = getattr(dataset, part)
        assert Counter(s.label for s in samples) == Counter(label for _, label, _ in raw[part])
        assert samples[7].image.open().mode == "RGB"
    assert [path.name for path in home.iterdir() if path.is_file()] == ["split_gopro_Caltech101.json"]


def made_folders(images: Path, folders: dict[str, int]) -> Path:
    for folder, count in folders.items():
        for i in range(count):
            image(images / folder / f"{i}.jpg")
    return images


def test_folders_are_renamed_and_ignored(tmp_path: Path):
    made_folders(
        tmp_path / "caltech-101/101_ObjectCategories",
        {"BACKGROUND_Google": 2, "Faces": 10, "Faces_easy": 10, "airplanes": 10, "yin_yang": 10},
    )
    place(tmp_path / "caltech-101/101_ObjectCategories/BACKGROUND_Google/tmp")  # as in the real archive
    dataset = small("caltech101", 3, 30).load(tmp_path)
    assert dataset.classnames == ("face", "airplane", "yin yang") and counts(dataset) == (15, 6, 9)

    made_folders(tmp_path / "eurosat/2750", {"SeaLake": 10, "Forest": 10, "AnnualCrop": 10})
    dataset = small("eurosat", 3, 30).load(tmp_path)
    assert dataset.classnames == ("Annual Crop Land", "Forest", "Sea or Lake")
    assert {Path(s.image.name).parent.name for s in dataset.test if s.label == 2} == {"SeaLake"}

    made_folders(tmp_path / "food-101/images", {"apple_pie": 10, "waffles": 10})
    dataset = small("food101", 2, 20).load(tmp_path)
    assert dataset.classnames == ("apple pie", "waffles") and counts(dataset) == (10, 4, 6)


def test_eurosat_s_names_match_its_split_file(shared: Path, tmp_path: Path):
    raw, names = real("eurosat", shared)
    folders = {Path(path).parent.name for part in raw.values() for path, _, _ in part}
    made_folders(tmp_path / "eurosat/2750", dict.fromkeys(folders, 10))
    assert small("eurosat", 10, 100).load(tmp_path).classnames == tuple(names)


def test_an_incomplete_folder_is_not_split(tmp_path: Path):
    made_folders(tmp_path / "food-101/images", {"apple_pie": 10, "waffles": 9})
    assert "2 classes, but food101 has 101" in refusal(CATALOG["food101"], tmp_path)
    assert "19 images, but food101 has 20" in refusal(small("food101", 2, 20), tmp_path)
    assert [path.name for path in (tmp_path / "food-101").iterdir()] == ["images"]


def test_an_unwritable_folder_is_split_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made_folders(tmp_path / "food-101/images", {"apple_pie": 10, "waffles": 10})
    entry = small("food101", 2, 20)

    def refuse(path: Path, content: object):
        raise InputError(f"{path} cannot be written: Permission denied")

    monkeypatch.setattr(splits, "write_json", refuse)
    with pytest.warns(UserWarning, match=r"split_gopro_Food101\.json cannot be written: Permission denied"):
        drawn = entry.load(tmp_path)
    monkeypatch.undo()
    assert drawn == entry.load(tmp_path)


def test_draws_are_the_same_on_every_machine():
    entries: list[Entry] = [(f"{name}/{i}.jpg", label, name) for label, name in enumerate("ab") for i in range(10)]
    parts = split_in_three(reversed(entries))
    assert [path for path, label, _ in parts["test"] if label == 0] == ["a/9.jpg", "a/0.jpg", "a/6.jpg"]
    assert split_in_three(entries) == parts
    off = split_off_val(entries, [("t.jpg", 0, "a")])
    assert [path for path, _, _ in off["val"]] == ["a/1.jpg", "a/2.jpg", "b/3.jpg", "b/5.jpg"]
    assert len(off["train"]) == 16 and off["test"] == [("t.jpg", 0, "a")]


def write_sun(root: Path) -> Path:
    home = root / "sun397"
    (home / "SUN397").mkdir(parents=True)
    classes = ("/a/abbey", "/a/airplane_cabin", "/a/athletic_field/outdoor")
    place(home / "ClassName.txt", "".join(f"{name}\n" for name in classes))
    place(home / "Training_01.txt", "".join(f"{name}/sun_{i}.jpg\n" for name in classes for i in range(10)))
    place(home / "Testing_01.txt", "".join(f"{name}/sun_t{i}.jpg\n" for name in classes for i in range(4)))
    return home


def test_sun397_s_annotations(tmp_path: Path):
    home = write_sun(tmp_path)
    dataset = small("sun397", 3, 42).load(tmp_path)
    assert dataset.classnames == ("abbey", "airplane cabin", "outdoor athletic field")
    assert counts(dataset) == (24, 6, 12)
    assert listed(dataset.test, home / "SUN397")[8] == ("a/athletic_field/outdoor/sun_t0.jpg", 2)
    written = json.loads((home / "split_gopro_SUN397.json").read_text())
    assert written["test"][8] == ["a/athletic_field/outdoor/sun_t0.jpg", 2, "outdoor athletic_field"]


def write_aircraft(root: Path) -> Path:
    home = root / "fgvc_aircraft"
    (home / "images").mkdir(parents=True)
    variants = ("707-320", "Boeing 717", "F-16A/B")
    place(home / "variants.txt", "".join(f"{name}\n" for name in variants))
    for k, part in enumerate(PARTS):
        rows = [f"{k}{i}{j} {name}\n" for i in range(k + 1) for j, name in enumerate(variants)]
        place(home / f"images_variant_{part}.txt", "".join(rows))
    return home


def test_fgvc_aircraft_s_annotations(tmp_path: Path):
    home = write_aircraft(tmp_path)
    dataset = small("fgvc_aircraft", 3).load(tmp_path)
    assert dataset.classnames == ("707-320", "Boeing 717", "F-16A/B") and counts(dataset) == (3, 6, 9)
    assert listed(dataset.train, home / "images") == [("000.jpg", 0), ("001.jpg", 1), ("002.jpg", 2)]
    assert not list(home.glob("split_*"))


# ---- ImageNet and its variants

WNIDS = {"n01440764": "tench", "n03773504": "missile", "n04008634": "missile", "n02007558": "flamingo"}


def write_classnames(folder: Path) -> None:
    place(folder / "classnames.txt", "".join(f"{wnid} {name}\n" for wnid, name in sorted(WNIDS.items())))


def write_imagenet(root: Path) -> Path:
    home = root / "imagenet"
    write_classnames(home)
    for part, count in (("train", 3), ("val", 2)):
        for wnid in WNIDS:
            for i in range(count):
                place(home / "images" / part / wnid / f"{wnid}_{i}.JPEG")
    return home


def test_imagenet_s_folders(tmp_path: Path):
    home = write_imagenet(tmp_path)
    place(home / "images" / "val" / "valprep.sh")

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (home / "unpickled",))

    (home / "preprocessed.pkl").write_bytes(pickle.dumps(Bomb()))
    dataset = small("imagenet", 4).load(tmp_path)
    assert dataset.classnames == ("tench", "flamingo", "missile", "missile")  # by WordNet id
    assert counts(dataset) == (12, 0, 8)
    assert listed(dataset.train, home / "images")[3] == ("train/n02007558/n02007558_0.JPEG", 1)
    assert {Path(s.image.name).parts[-3] for s in dataset.test} == {"val"}
    drawn = dataset.few_shot(2, seed=1)
    assert Counter(s.label for s in drawn.train) == dict.fromkeys(range(4), 2) and not drawn.val
    assert dataset.half("new").classnames == ("missile", "missile")
    assert not (home / "unpickled").exists() and not list(home.glob("split_*"))


def test_imagenet_s_folders_and_names_must_agree(tmp_path: Path):
    home = write_imagenet(tmp_path)
    entry = small("imagenet", 4)
    assert "4 classes, but imagenet has 1000" in refusal(CATALOG["imagenet"], tmp_path)
    place(home / "images/val/n99999999/x.JPEG")
    assert re.search(r"classnames\.txt: has no name for n99999999 of .*val", refusal(entry, tmp_path))
    (home / "images/val/n99999999").rename(tmp_path / "away")
    (home / "images/val/n01440764").rename(tmp_path / "away2")
    assert re.search(r"images/val: has other folders than .*n01440764", refusal(entry, tmp_path))
    place(home / "classnames.txt", "n01440764 tench\nn01440764 fish\n")
    assert "names n01440764 twice" in refusal(entry, tmp_path)
    place(home / "classnames.txt", "tench\n")
    assert "line 1 is 'tench', not a WordNet id and a class name" in refusal(entry, tmp_path)
    (home / "classnames.txt").unlink()
    assert entry.missing(tmp_path) == [home / "classnames.txt"]


def write_variant(root: Path, name: str) -> Path:
    entry = CATALOG[name]
    images = root / entry.folder / entry.images
    # -A and -R have some of the classes; ImageNetV2 numbers them all
    folders = [str(i) for i in range(4)] if name == "imagenetv2" else sorted(WNIDS)
    for folder in folders if name in ("imagenetv2", "imagenet_sketch") else folders[1:3]:
        for i in range(2):
            place(images / folder / f"{i}.jpeg")
    place(images / "README.txt")
    return root / entry.folder


@pytest.mark.parametrize("name", ["imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"])
def test_variants_of_imagenet_are_only_tested_on(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    home = write_variant(tmp_path, name)
    assert CATALOG[name].missing(tmp_path) == [home / "classnames.txt"]
    write_classnames(home)
    every = ("tench", "flamingo", "missile", "missile")
    expected = every[1:3] if name in ("imagenet_a", "imagenet_r") else every
    entry = small(name, len(expected))
    dataset = entry.load(tmp_path)
    assert dataset.classnames == expected and counts(dataset) == (0, 0, 2 * len(expected))
    assert [s.label for s in dataset.test] == [label for label in range(len(expected)) for _ in range(2)]
    if len(expected) == len(every):
        assert len(dataset.half("base").test) == len(expected)
    with pytest.raises(InputError, match=f"{name} has no training images"):
        dataset.few_shot(1, seed=1)
    # ImageNet's own class names do, where the variant has no copy
    (home / "classnames.txt").unlink()
    write_classnames(tmp_path / "imagenet")
    assert entry.missing(tmp_path) == [] and entry.load(home) == dataset
    monkeypatch.chdir(home)
    assert entry.load(Path(".")).test[-1].label == dataset.test[-1].label


def test_imagenetv2_s_folders_are_one_per_line_of_the_names(tmp_path: Path):
    home = write_variant(tmp_path, "imagenetv2")
    write_classnames(home)
    (home / CATALOG["imagenetv2"].images / "3").rename(home / CATALOG["imagenetv2"].images / "03")
    assert "must be 0 to 3" in refusal(small("imagenetv2", 4), tmp_path)


# ---- damaged annotations


DAMAGE = {
    (
        "oxford_pets",
        "annotations/test.txt",
        b"Abyssinian_1 1 1\n",
    ): r"test\.txt: line 1 is 'Abyssinian_1 1 1', not",
    ("oxford_pets", "annotations/test.txt", b"\xff\xfe"): r"test\.txt: cannot be read as text",
    ("oxford_pets", "annotations/test.txt", b"a/../../b_1 1 1 1\n"): "not an image",
    ("oxford_pets", "annotations/test.txt", b"Beagle_1 1 1 1\n"): "calls label 0 'beagle', elsewhere 'abyssinian'",
    ("oxford_pets", "annotations/test.txt", b"Zebra_1 99 1 1\n"): "without gaps; 'zebra' has label 98",
    (
        "stanford_cars",
        "devkit/cars_meta.mat",
        b"no mat file",
    ): r"cars_meta\.mat: not a MATLAB file with .* class_names",
    (
        "stanford_cars",
        "devkit/cars_train_annos.mat",
        b"",
    ): r"cars_train_annos\.mat: not a MATLAB file with .* annotations",
    (
        "oxford_flowers",
        "imagelabels.mat",
        b"MATLAB 5.0 MAT-file" * 20,
    ): r"imagelabels\.mat: not a MATLAB file with .* labels",
    ("oxford_flowers", "cat_to_name.json", b"{"): r"cat_to_name\.json: invalid JSON",
    ("oxford_flowers", "cat_to_name.json", b'{"2": "fire lily"}'): r"cat_to_name\.json: has no name for the label \d+",
    ("ucf101", "ucfTrainTestlist/testlist01.txt", b"Nap/v_Nap_g01_c01.avi\n"): r"testlist01\.txt: has the class 'Nap'",
    ("ucf101", "ucfTrainTestlist/testlist01.txt", b"../v_Nap.avi\n"): "line 1 is",
}


@pytest.mark.parametrize(("name", "file", "content"), DAMAGE)
def test_damaged_annotations_are_named(name: str, file: str, content: bytes, shared: Path, tmp_path: Path):
    home = tmp_path / CATALOG[name].folder
    WRITERS[name](home, real(name, shared)[0])
    (home / file).write_bytes(content)
    assert re.search(DAMAGE[name, file, content], refusal(CATALOG[name], tmp_path))
    assert not list(home.glob("split_*"))


def test_lists_that_lead_out_of_the_folder_or_disagree_are_refused(tmp_path: Path):
    home = write_sun(tmp_path)
    place(home / "Testing_01.txt", "/a/abbey/../sun.jpg\n")
    assert "has the class 'a/abbey/..'" in refusal(small("sun397", 3, 42), tmp_path)
    place(home / "Testing_01.txt", "/a/abbey/..\n")
    assert "must stay below" in refusal(small("sun397", 3, 42), tmp_path)
    place(home / "Testing_01.txt", "/a/abbey/sun_1.jpg\n")
    assert "listed in" in refusal(small("sun397", 3, 42), tmp_path)
    home = write_aircraft(tmp_path)
    place(home / "images_variant_val.txt", "../../x 707-320\n")
    assert "must stay below" in refusal(small("fgvc_aircraft", 3), tmp_path)
    place(home / "images_variant_val.txt", "1 747\n")
    message = refusal(small("fgvc_aircraft", 3), tmp_path)
    assert re.search(r"images_variant_val\.txt: has the class '747', which .*variants\.txt lacks", message)


def test_a_label_beyond_the_classes_is_named(shared: Path, tmp_path: Path):
    raw, _ = real("stanford_cars", shared)
    home = tmp_path / "stanford_cars"
    write_cars(home, raw)
    savemat(home / "devkit/cars_meta.mat", {"class_names": np.array([["A Car 2012", "B Car 2011"]], dtype=object)})
    message = refusal(CATALOG["stanford_cars"], tmp_path)
    assert re.search(r"cars_train_annos\.mat: has the label \d+, but there are 2 classes", message)
