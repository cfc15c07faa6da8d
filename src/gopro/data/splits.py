"""CoOp's split files: JSON lists of [relative path, label, class name] under train, val and test.

The format is that of `split_zhou_*.json` of https://github.com/KaiyangZhou/CoOp, read without trusting it. Where there
is no such file, a split is drawn in one of CoOp's two ways.
"""

from __future__ import annotations

import json
import random
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

from gopro.data.class_names import clean_name
from gopro.data.dataset import Dataset, Sample, SplitName
from gopro.data.images.image_file import ImageFile
from gopro.errors import InputError
from gopro.files import write_json

Entry = tuple[str, int, str]
"""Path below the folder of images, label, class name as written."""

Entries = dict[SplitName, list[Entry]]
"""The entries of train, val and test."""


def read_entries(file: Path) -> Entries:
    """Read and check the entries of a split file.

    Raises:
        InputError: the file is missing or has another format; a path is absolute, has `..` or is listed twice; labels
            and names do not match one to one, or labels do not run from 0; train or test is empty.
    """
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: the split file cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a split file: invalid JSON ({error}); restore or remove it") from error
    if not isinstance(content, dict) or set(content) != set(get_args(SplitName)):
        raise InputError(f"{file}: not a split file: it must be an object with the keys train, val and test")
    entries: Entries = {}
    for split in get_args(SplitName):
        if not isinstance(content[split], list):
            raise InputError(f"{file}: not a split file: {split} must be a list of [path, label, class name]")
        entries[split] = [_entry(raw, f"{file}: {split}[{i}]") for i, raw in enumerate(content[split])]
        if not entries[split] and split != "val":
            raise InputError(f"{file}: {split} is empty; add entries or remove the file")
    return check_entries(entries, file)


def check_entries(entries: Entries, file: Path) -> Entries:
    """Return entries that were read from `file` after checking them.

    Raises:
        InputError: a path leads out of the folder of images or is listed twice; labels and names do not match one to
            one, or labels do not run from 0.
    """
    _check_paths(entries, file)
    _check_labels(entries, file)
    return entries


def dataset_from_entries(name: str, entries: Entries, images: Path, template: str = Dataset.template) -> Dataset:
    """Make a data set of checked entries, with paths below the folder `images`.

    No image is looked up: a missing one is an InputError when it is opened.
    """
    names = {label: name for listed in entries.values() for _, label, name in listed}

    def samples(split: SplitName) -> tuple[Sample, ...]:
        return tuple(Sample(ImageFile(images / path), label) for path, label, _ in entries[split])

    classnames = tuple(clean_name(names[label]) for label in range(len(names)))
    return Dataset(name, classnames, samples("train"), samples("val"), samples("test"), template)


def split_in_three(entries: Iterable[Entry], seed: int = 1) -> Entries:
    """Split each class 50/20/30, rounded as in CoOp's `read_and_split_data`, but never without a test image.

    The draw of a class depends only on `seed`, its name and the names of its images.
    """
    splits: Entries = {"train": [], "val": [], "test": []}
    for listed in _shuffled(entries, seed):
        train = round(0.5 * len(listed))
        val = train + min(round(0.2 * len(listed)), len(listed) - train - 1)
        splits["train"] += listed[:train]
        splits["val"] += listed[train:val]
        splits["test"] += listed[val:]
    return splits


def split_off_val(trainval: Iterable[Entry], test: Iterable[Entry]) -> Entries:
    """Keep an official test split, and take 20 % of each class of the rest as val: CoOp's `split_trainval`.

    The draw of a class depends only on its name and the names of its images.
    """
    splits: Entries = {"train": [], "val": [], "test": list(test)}
    for listed in _shuffled(trainval):
        val = round(0.2 * len(listed))
        splits["val"] += listed[:val]
        splits["train"] += listed[val:]
    return splits


def _shuffled(entries: Iterable[Entry], seed: int = 1) -> Iterator[list[Entry]]:
    """Yield the entries of each class, by label, in an order that is the same on every machine."""
    classes: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        classes[entry[1]].append(entry)
    for label in sorted(classes):
        listed = sorted(classes[label])
        random.Random(f"{seed}/{unicodedata.normalize('NFC', listed[0][2])}").shuffle(listed)
        yield listed


def save_entries(file: Path, entries: Entries) -> None:
    """Save a split that was just drawn, or warn that the folder cannot be written to."""
    try:
        write_json(file, {split: entries[split] for split in get_args(SplitName)})
    except InputError as error:
        warnings.warn(
            f"{error}; the split will be drawn again each time, and stays the same only while the images do",
            stacklevel=6,  # the caller of load_dataset
        )


def _entry(raw: Any, where: str) -> Entry:
    match raw:
        case [str(path), int(label), str(name)] if not isinstance(label, bool):
            pass
        case _:
            raise InputError(f"{where} is {str(raw)[:80]!r}, not [path, label, class name]")
    if not clean_name(name):
        raise InputError(f"{where}: class name {name!r} is empty")
    return path, label, name


def _check_paths(entries: Entries, file: Path) -> None:
    split_of: dict[str, str] = {}
    for split, listed in entries.items():
        for i, (path, _, _) in enumerate(listed):
            if not path or path.startswith("/") or ".." in path.split("/"):
                raise InputError(
                    f"{file}: {split}[{i}]: path {path!r} must stay below the folder of images: no leading / and no .."
                )
            if path in split_of:
                raise InputError(f"{file}: {path} is listed in {split_of[path]} and again in {split}; keep one of them")
            split_of[path] = split


def _check_labels(entries: Entries, file: Path) -> None:
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    for split, listed in entries.items():
        for path, label, name in listed:
            if names.setdefault(label, name) != name:
                raise InputError(f"{file}: {split}: {path} calls label {label} {name!r}, elsewhere {names[label]!r}")
            if (first := labels.setdefault(clean_name(name), label)) != label:
                raise InputError(f"{file}: {split}: {path} gives {name!r} label {label}, elsewhere {first}")
    if sorted(names) != list(range(len(names))):
        wrong = next(label for expected, label in enumerate(sorted(names)) if label != expected)
        raise InputError(
            f"{file}: labels must be 0 to {len(names) - 1} without gaps; {names[wrong]!r} has label {wrong}"
        )
