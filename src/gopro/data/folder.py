"""A folder of class-named folders as a data set.

Either the folder has `train` and `test` (and perhaps `val`) folders with the class folders in them, or it has the
class folders themselves, which are then split by seed; the split is written down once, in `split_gopro.json`.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from gopro.data.dataset import Dataset, Sample, SplitName
from gopro.data.pictures import SUFFIXES, PictureFile
from gopro.data.splits import Entry, clean_name, read_entries, read_split, write_entries
from gopro.errors import InputError

SPLIT_FILE = "split_gopro.json"
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what systems leave behind; hidden names go anyway
_PARTS = frozenset(get_args(SplitName))


def folder_dataset(root: Path, seed: int = 1, template: str = "a photo of a {}.") -> Dataset:
    """The data set in a folder of class-named folders.

    Labels follow the sorted folder names; class names are these names with underscores as spaces. Pictures may lie
    in folders below their class folder. Hidden names and what systems leave behind (Thumbs.db, desktop.ini,
    __MACOSX) are passed over; any other file in a class folder that is no picture is an error.

    Without train and test folders, each class is split 50/20/30 into train, val and test as in CoOp, with at least
    one picture to train and one to test on. The draw of a class depends on `seed`, its name and its pictures alone.
    It is written to `split_gopro.json` in the form of CoOp's split files, and from then on that file counts, whatever
    the seed. Where the folder cannot be written to, the split is drawn anew each time, with a warning.

    Raises:
        InputError: there is no such folder, fewer than two classes, an empty class, class names that read the same,
            a file that is no picture, parts whose classes differ, or pictures that `split_gopro.json` does not agree
            with.
    """
    root = root.expanduser()
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give a folder that holds one folder of pictures a class")
    name = Path(os.path.abspath(root)).name
    folders = set(_class_folders(root))
    if not folders:
        raise InputError(f"{root}: no class folders; put the pictures of each class in a folder named after the class")
    if folders & {"train", "test"} == {"train", "test"} or folders <= _PARTS:
        return _parted(root, folders, name, template)
    return _split(root, seed, name, template)


def _parted(root: Path, folders: set[str], name: str, template: str) -> Dataset:
    if folders - _PARTS or not {"train", "test"} <= folders:
        raise InputError(
            f"{root}: holds the folders {', '.join(sorted(folders))}; it must be train, test and perhaps val, "
            "or class folders alone"
        )
    found = {part: _pictures_by_class(root / part) for part in sorted(folders)}
    classes = sorted(found["train"])
    for part in sorted(folders - {"train"}):
        if missing := sorted(set(classes) - set(found[part])):
            raise InputError(f"{root / part}: no folder for {_some(missing)}, which train has; the classes must agree")
        if extra := sorted(set(found[part]) - set(classes)):
            raise InputError(f"{root / part}: has {_some(extra)}, which train lacks; the classes must agree")
    _check_two(root / "train", classes)

    def samples(part: str) -> tuple[Sample, ...]:
        pictures = found.get(part, {})
        return tuple(
            Sample(PictureFile(root / part / path), label)
            for label, folder in enumerate(classes)
            for path in pictures.get(folder, ())
        )

    classnames = tuple(clean_name(folder) for folder in classes)
    return Dataset(name, classnames, samples("train"), samples("val"), samples("test"), template)


def _split(root: Path, seed: int, name: str, template: str) -> Dataset:
    found = _pictures_by_class(root)
    _check_two(root, list(found))
    file = root / SPLIT_FILE
    if file.exists():
        listed = {path for part in read_entries(file).values() for path, _, _ in part}
        _check_unchanged(file, listed, {path for paths in found.values() for path in paths})
        split = read_split(file, root)
        classnames = tuple(clean_name(written) for written in split.classnames)
        return Dataset(name, classnames, split.train, split.val, split.test, template)
    entries = _draw(found, root, seed)
    try:
        write_entries(file, entries)
    except OSError as error:
        warnings.warn(
            f"{file} cannot be written ({error.strerror}): the split is drawn anew each time, and stays the same only "
            "as long as the pictures do",
            stacklevel=3,
        )
    parts = {
        part: tuple(Sample(PictureFile(root / path), label) for path, label, _ in entries[part]) for part in entries
    }
    return Dataset(name, tuple(map(clean_name, sorted(found))), parts["train"], parts["val"], parts["test"], template)


def _draw(found: dict[str, list[str]], root: Path, seed: int) -> dict[SplitName, list[Entry]]:
    """50/20/30 of each class, rounded as CoOp's `read_and_split_data` does, but never without a test picture."""
    entries: dict[SplitName, list[Entry]] = {"train": [], "val": [], "test": []}
    for label, folder in enumerate(sorted(found)):
        paths = sorted(found[folder])
        if len(paths) < 2:
            raise InputError(f"{root / folder}: one picture only; a class needs one to train and one to test on")
        random.Random(f"{seed}/{folder}").shuffle(paths)
        train = round(0.5 * len(paths))
        val = min(round(0.2 * len(paths)), len(paths) - train - 1)
        ends: dict[SplitName, slice] = {
            "train": slice(train),
            "val": slice(train, train + val),
            "test": slice(train + val, None),
        }
        for part, chosen in ends.items():
            entries[part] += [(path, label, folder) for path in paths[chosen]]
    return entries


def _check_unchanged(file: Path, listed: set[str], found: set[str]) -> None:
    advice = f"undo that, or remove {file.name} to have a new split drawn"
    if vanished := sorted(listed - found):
        raise InputError(f"{file}: lists {_some(vanished)}, no longer there; {advice}")
    if appeared := sorted(found - listed):
        raise InputError(f"{file}: does not list {_some(appeared)}, added since; {advice}")


def _check_two(folder: Path, classes: list[str]) -> None:
    if len(classes) < 2:
        only = f"one class only ({classes[0]})" if classes else "no class folders"
        raise InputError(f"{folder}: {only}; a classifier needs two or more")


def _some(names: list[str]) -> str:
    """A few of the names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _kept(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            kept = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _LITTER]
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return sorted(kept, key=lambda entry: entry.name)


def _class_folders(root: Path) -> Iterable[str]:
    for entry in _kept(root):
        if entry.is_dir():
            yield entry.name
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            raise InputError(f"{entry.path}: a picture outside any class folder; move it into one or remove it")


def _pictures_by_class(root: Path) -> dict[str, list[str]]:
    """Class folder → its pictures' paths below `root`, sorted."""
    found: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for folder in _class_folders(root):
        found[folder] = _pictures_below(root / folder, f"{folder}/", ())
        if not found[folder]:
            raise InputError(f"{root / folder}: no pictures in this class folder; add some or remove the folder")
        name = clean_name(folder).casefold()
        if not name:
            raise InputError(f"{root / folder}: the folder's name gives an empty class name; rename it")
        if name in names:
            raise InputError(
                f"{root}: folders {names[name]} and {folder} give the same class name; rename one or merge"
            )
        names[name] = folder
    return found


def _pictures_below(folder: Path, prefix: str, above: tuple[str, ...]) -> list[str]:
    real = os.path.realpath(folder)
    if real in above:
        raise InputError(f"{folder}: a link that leads back to a folder above it; remove it")
    paths: list[str] = []
    for entry in _kept(folder):
        if entry.is_dir():
            paths += _pictures_below(Path(entry.path), f"{prefix}{entry.name}/", (*above, real))
        elif Path(entry.name).suffix.lower() in SUFFIXES:
            paths.append(prefix + entry.name)
        else:
            endings = " ".join(SUFFIXES)
            raise InputError(f"{entry.path}: not a picture by its name ({endings}); convert, move or remove it")
    return sorted(paths)
