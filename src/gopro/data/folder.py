"""A folder of class folders as a data set.

The folder holds either `train` and `test` (and perhaps `val`) folders with the class folders in them, or the class
folders themselves. The latter are split by seed, and the split is written once to `split_gopro.json`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import get_args

from gopro.data.class_names import clean_name
from gopro.data.dataset import Dataset, Sample, SplitName
from gopro.data.domains import check_not_domains
from gopro.data.find_images import class_folders, first_few, images_by_class
from gopro.data.image_file import ImageFile
from gopro.data.splits import Entries, dataset_from_entries, read_entries, save_entries, split_in_three
from gopro.errors import InputError

SPLIT_FILE = "split_gopro.json"
_SPLITS = frozenset(get_args(SplitName))


def folder_dataset(root: Path, seed: int = 1) -> Dataset:
    """Load a folder of class folders.

    Labels follow the sorted folder names; class names are these names with underscores as spaces. Images may lie in
    folders below their class folder. Hidden files and those that operating systems leave behind (Thumbs.db,
    desktop.ini, __MACOSX) are ignored; any other file in a class folder that is not an image is an error.

    Without train and test folders, each class is split 50/20/30 into train, val and test as in CoOp, with at least one
    image to train and one to test on. The draw of a class depends only on `seed`, its name and the names of its images.
    It is written to `split_gopro.json` in the form of CoOp's split files, and that file counts from then on, whatever
    the seed. If the folder cannot be written to, the split is drawn again each time, with a warning.

    Raises:
        InputError: no such folder, fewer than two classes, an empty class, class names that read the same, a file that
            is not an image, splits with different classes, images that do not match `split_gopro.json`, or folders of
            domains instead of classes.
    """
    root = root.expanduser()
    name, folders = _check_folder(root)
    if _has_splits(folders):
        return _load_split_folders(root, folders, name)
    return _load_class_folders(root, seed, name)


def folder_target(root: Path) -> Dataset:
    """Load a folder of class folders for a model that is trained on other data: with test images only.

    Without train and test folders these are all images, and no split is drawn.

    Raises:
        InputError: as `folder_dataset`, except for what concerns a split.
    """
    root = root.expanduser()
    name, folders = _check_folder(root)
    if _has_splits(folders):
        return replace(_load_split_folders(root, folders, name), train=(), val=())
    images = _class_images(root)
    samples = (Sample(ImageFile(root / path), label) for label, paths in enumerate(images.values()) for path in paths)
    return Dataset(name, tuple(map(clean_name, images)), (), (), tuple(samples))


def _check_folder(root: Path) -> tuple[str, set[str]]:
    """Return the name of a data set's folder and the folders in it."""
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give one that holds a folder of images per class")
    folders = set(class_folders(root))
    if not folders:
        raise InputError(f"{root}: no class folders; put the images of each class in a folder named after the class")
    return Path(os.path.abspath(root)).name, folders


def _has_splits(folders: set[str]) -> bool:
    return {"train", "test"} <= folders or folders <= _SPLITS


def _load_split_folders(root: Path, folders: set[str], name: str) -> Dataset:
    if folders - _SPLITS or not {"train", "test"} <= folders:
        raise InputError(
            f"{root}: holds the folders {', '.join(sorted(folders))}; give it train, test and perhaps val, or only "
            "class folders"
        )
    images = {split: images_by_class(root / split) for split in sorted(folders)}
    classes = sorted(images["train"])
    for split in sorted(folders - {"train"}):
        if missing := sorted(set(classes) - set(images[split])):
            raise InputError(f"{root / split}: lacks the class {first_few(missing)} of train; add or remove it in both")
        if extra := sorted(set(images[split]) - set(classes)):
            raise InputError(f"{root / split}: has the class {first_few(extra)}, which train lacks; make them agree")
    _check_two(root / "train", classes)

    def samples(split: SplitName) -> tuple[Sample, ...]:
        return tuple(
            Sample(ImageFile(root / split / path), label)
            for label, folder in enumerate(classes)
            for path in images.get(split, {}).get(folder, ())
        )

    classnames = tuple(clean_name(folder) for folder in classes)
    return Dataset(name, classnames, samples("train"), samples("val"), samples("test"))


def _load_class_folders(root: Path, seed: int, name: str) -> Dataset:
    images = _class_images(root)
    file = root / SPLIT_FILE
    if file.exists():
        entries = read_entries(file)
        listed = {path for split in entries.values() for path, _, _ in split}
        _check_unchanged(file, listed, {path for paths in images.values() for path in paths})
    else:
        entries = _draw(images, root, seed)
        save_entries(file, entries)
    return dataset_from_entries(name, entries, root)


def _class_images(root: Path) -> dict[str, list[str]]:
    """Map each class folder to its images, after checking that there are two or more and that they are no domains."""
    check_not_domains(root)
    images = images_by_class(root)
    _check_two(root, list(images))
    return images


def _draw(images: dict[str, list[str]], root: Path, seed: int) -> Entries:
    for folder, paths in images.items():
        if len(paths) < 2:
            raise InputError(f"{root / folder}: only one image; a class needs one to train and one to test on")
    return split_in_three(
        [(path, label, folder) for label, folder in enumerate(images) for path in images[folder]], seed
    )


def _check_unchanged(file: Path, listed: set[str], present: set[str]) -> None:
    advice = f"undo that, or remove {file.name} to have a new split drawn"
    if removed := sorted(listed - present):
        raise InputError(f"{file}: lists {first_few(removed)}, no longer there; {advice}")
    if added := sorted(present - listed):
        raise InputError(f"{file}: does not list {first_few(added)}, added since; {advice}")


def _check_two(folder: Path, classes: list[str]) -> None:
    if len(classes) < 2:
        problem = f"only one class ({classes[0]})" if classes else "no class folders"
        raise InputError(f"{folder}: {problem}; a classifier needs at least two")
