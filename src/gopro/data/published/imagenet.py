"""ImageNet and its variants: class names by WordNet id, and the folders that the ids name.

The class names are CoOp's `classnames.txt`, which lies beside the images and has a line such as `n01440764 tench` for
each of the 1000 classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gopro.data.folders.find_images import class_folders, images_by_class
from gopro.data.published.annotations import read_rows
from gopro.data.splits import Entries, Entry
from gopro.errors import InputError, first_few


def train_and_test(train: Path, val: Path, classnames: Path) -> Entries:
    """Read ImageNet's folders, named by WordNet id; its validation images are `test`, as everywhere in the field.

    `val` is empty. CoOp puts the test images there too, but a model selected on them would have seen the test labels.
    """
    names = class_names(classnames)
    train_paths = _check_named(images_by_class(train), names, train, classnames)
    test_paths = _check_named(images_by_class(val), names, val, classnames)
    if differing := sorted(set(train_paths) ^ set(test_paths)):
        raise InputError(f"{val}: has other folders than {train}: {first_few(differing)}; make them agree")
    return {
        "train": _by_folder(train_paths, names, f"{train.name}/"),
        "val": [],
        "test": _by_folder(test_paths, names, f"{val.name}/"),
    }


def wnid_folders(images: Path, classnames: Path) -> Entries:
    """Read a test set of ImageNet's classes, in folders named by WordNet id; labels follow the sorted folders."""
    names = class_names(classnames)
    paths = _check_named(images_by_class(images), names, images, classnames)
    return {"train": [], "val": [], "test": _by_folder(paths, names)}


def numbered_folders(images: Path, classnames: Path) -> Entries:
    """Read a test set of ImageNet's classes, in folders 0, 1, ... that count the lines of the class names."""
    names = {str(number): name for number, name in enumerate(class_names(classnames).values())}
    present = set(class_folders(images))
    if differing := sorted(present ^ set(names)):
        raise InputError(
            f"{images}: its folders must be 0 to {len(names) - 1}, one per line of {classnames}; check "
            f"{first_few(differing)}"
        )
    paths = images_by_class(images)
    return {"train": [], "val": [], "test": _by_folder({number: paths[number] for number in names}, names)}


def _by_folder(paths: Mapping[str, list[str]], names: Mapping[str, str], prefix: str = "") -> list[Entry]:
    return [(prefix + path, label, names[folder]) for label, folder in enumerate(paths) for path in paths[folder]]


def _check_named(
    paths: dict[str, list[str]], names: Mapping[str, str], images: Path, classnames: Path
) -> dict[str, list[str]]:
    if nameless := [folder for folder in paths if folder not in names]:
        raise InputError(
            f"{classnames}: has no name for {first_few(nameless)} of {images}; restore it or move the folders away"
        )
    return paths


def class_names(file: Path) -> dict[str, str]:
    """Read CoOp's classnames.txt: WordNet id → class name. Two ids may share a name, as `missile` does."""
    names: dict[str, str] = {}
    for wnid, name in read_rows(file, r"(n\d{8}) (.+)", "a WordNet id and a class name"):
        if wnid in names:
            raise InputError(f"{file}: names {wnid} twice; restore it")
        names[wnid] = name
    return names
