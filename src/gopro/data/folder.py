"""A folder of class-named folders as a data set.

Either the folder has `train` and `test` (and perhaps `val`) folders with the class folders in them, or it has the
class folders themselves, which are then split by seed; the split is written down once, in `split_gopro.json`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

from gopro.data.dataset import Dataset, Sample, SplitName
from gopro.data.find_images import class_folders, images_by_class, some
from gopro.data.image_file import ImageFile
from gopro.data.splits import Parts, as_split, clean_name, keep_entries, read_entries, split_in_three
from gopro.errors import InputError

SPLIT_FILE = "split_gopro.json"
_PARTS = frozenset(get_args(SplitName))


def folder_dataset(root: Path, seed: int = 1, template: str = "a photo of a {}.") -> Dataset:
    """The data set in a folder of class-named folders.

    Labels follow the sorted folder names; class names are these names with underscores as spaces. Images may lie
    in folders below their class folder. Hidden names and what systems leave behind (Thumbs.db, desktop.ini,
    __MACOSX) are passed over; any other file in a class folder that is no image is an error.

    Without train and test folders, each class is split 50/20/30 into train, val and test as in CoOp, with at least
    one image to train and one to test on. The draw of a class depends on `seed`, its name and its images alone.
    It is written to `split_gopro.json` in the form of CoOp's split files, and from then on that file counts, whatever
    the seed. Where the folder cannot be written to, the split is drawn anew each time, with a warning.

    Raises:
        InputError: there is no such folder, fewer than two classes, an empty class, class names that read the same,
            a file that is no image, parts whose classes differ, or images that `split_gopro.json` does not agree
            with.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give a folder that holds one folder of images a class")
    name = Path(os.path.abspath(root)).name
    folders = set(class_folders(root))
    if not folders:
        raise InputError(f"{root}: no class folders; put the images of each class in a folder named after the class")
    if folders & {"train", "test"} == {"train", "test"} or folders <= _PARTS:
        return _parted(root, folders, name, template)
    return _split(root, seed, name, template)


def _parted(root: Path, folders: set[str], name: str, template: str) -> Dataset:
    if folders - _PARTS or not {"train", "test"} <= folders:
        raise InputError(
            f"{root}: holds the folders {', '.join(sorted(folders))}; it must be train, test and perhaps val, "
            "or class folders alone"
        )
    found = {part: images_by_class(root / part) for part in sorted(folders)}
    classes = sorted(found["train"])
    for part in sorted(folders - {"train"}):
        if missing := sorted(set(classes) - set(found[part])):
            raise InputError(f"{root / part}: no folder for {some(missing)}, which train has; the classes must agree")
        if extra := sorted(set(found[part]) - set(classes)):
            raise InputError(f"{root / part}: has {some(extra)}, which train lacks; the classes must agree")
    _check_two(root / "train", classes)

    def samples(part: str) -> tuple[Sample, ...]:
        images = found.get(part, {})
        return tuple(
            Sample(ImageFile(root / part / path), label)
            for label, folder in enumerate(classes)
            for path in images.get(folder, ())
        )

    classnames = tuple(clean_name(folder) for folder in classes)
    return Dataset(name, classnames, samples("train"), samples("val"), samples("test"), template)


def _split(root: Path, seed: int, name: str, template: str) -> Dataset:
    found = images_by_class(root)
    _check_two(root, list(found))
    file = root / SPLIT_FILE
    if file.exists():
        entries = read_entries(file)
        listed = {path for part in entries.values() for path, _, _ in part}
        _check_unchanged(file, listed, {path for paths in found.values() for path in paths})
    else:
        entries = _draw(found, root, seed)
        keep_entries(file, entries)
    split = as_split(entries, root)
    classnames = tuple(map(clean_name, split.classnames))
    return Dataset(name, classnames, split.train, split.val, split.test, template)


def _draw(found: dict[str, list[str]], root: Path, seed: int) -> Parts:
    for folder, paths in found.items():
        if len(paths) < 2:
            raise InputError(f"{root / folder}: one image only; a class needs one to train and one to test on")
    return split_in_three(
        [(path, label, folder) for label, folder in enumerate(sorted(found)) for path in found[folder]], seed
    )


def _check_unchanged(file: Path, listed: set[str], found: set[str]) -> None:
    advice = f"undo that, or remove {file.name} to have a new split drawn"
    if vanished := sorted(listed - found):
        raise InputError(f"{file}: lists {some(vanished)}, no longer there; {advice}")
    if appeared := sorted(found - listed):
        raise InputError(f"{file}: does not list {some(appeared)}, added since; {advice}")


def _check_two(folder: Path, classes: list[str]) -> None:
    if len(classes) < 2:
        only = f"one class only ({classes[0]})" if classes else "no class folders"
        raise InputError(f"{folder}: {only}; a classifier needs two or more")
