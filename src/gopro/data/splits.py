"""CoOp's split files: JSON lists of [relative path, label, class name] under train, val and test.

The form of `split_zhou_*.json` of https://github.com/KaiyangZhou/CoOp, read without trusting it, and the two ways in
which CoOp draws such a split where there is none.
"""

from __future__ import annotations

import json
import os
import random
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from gopro.data.dataset import Sample, SplitName
from gopro.data.image_file import ImageFile
from gopro.errors import InputError

Entry = tuple[str, int, str]
"""Path below the folder of images, label, class name as written."""

Parts = dict[SplitName, list[Entry]]
"""The entries of train, val and test."""


@dataclass(frozen=True)
class Split:
    """What a split file says: the class names as written, ordered by label, and the samples of each part."""

    classnames: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]


def clean_name(name: str) -> str:
    """A class name as it stands in a prompt: underscores are spaces, as in CoOp; outer and repeated spaces go."""
    return " ".join(name.replace("_", " ").split())


def read_entries(file: Path) -> Parts:
    """The checked entries of a split file.

    Raises:
        InputError: the file is missing or not such JSON; a path is absolute, has `..` or is listed twice;
            labels and names do not pair one to one or do not run from 0; train or test is empty.
    """
    try:
        content: Any = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: the split file cannot be read ({error.strerror})") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not a split file: no valid JSON ({error}); restore or remove it") from error
    if not isinstance(content, dict) or set(content) != set(get_args(SplitName)):
        raise InputError(f"{file}: not a split file: it must be an object with the keys train, val and test")
    entries: Parts = {}
    for part in get_args(SplitName):
        if not isinstance(content[part], list):
            raise InputError(f"{file}: not a split file: {part} must be a list of [path, label, class name]")
        entries[part] = [_entry(raw, f"{file}: {part}[{i}]") for i, raw in enumerate(content[part])]
        if not entries[part] and part != "val":
            raise InputError(f"{file}: {part} is empty; add entries or remove the file")
    check_entries(entries, file)
    return entries


def check_entries(entries: Mapping[SplitName, Sequence[Entry]], file: Path) -> None:
    """Raises InputError naming `file`: a path leaves the folder of images or is listed twice, or labels and names
    do not pair one to one or do not run from 0."""
    _check_paths(entries, file)
    _check_labels(entries, file)


def read_split(file: Path, images: Path) -> Split:
    """The split file's classes and samples, its paths taken below the folder `images`.

    The images themselves are not looked for: one that is missing is an InputError when it is opened.

    Raises:
        InputError: as `read_entries`.
    """
    return as_split(read_entries(file), images)


def as_split(entries: Mapping[SplitName, Sequence[Entry]], images: Path) -> Split:
    """Entries whose labels run from 0 as classes and samples, their paths taken below the folder `images`."""
    names = {label: name for part in entries.values() for _, label, name in part}

    def samples(part: SplitName) -> tuple[Sample, ...]:
        return tuple(Sample(ImageFile(images / path), label) for path, label, _ in entries[part])

    classnames = tuple(names[label] for label in range(len(names)))
    return Split(classnames, samples("train"), samples("val"), samples("test"))


def split_in_three(entries: Iterable[Entry], seed: int = 1) -> Parts:
    """50/20/30 of each class, rounded as CoOp's `read_and_split_data` does, but never without a test image.

    The draw of a class depends on `seed`, its name and its images' names alone.
    """
    parts: Parts = {"train": [], "val": [], "test": []}
    for listed in _shuffled(entries, seed):
        train = round(0.5 * len(listed))
        val = train + min(round(0.2 * len(listed)), len(listed) - train - 1)
        parts["train"] += listed[:train]
        parts["val"] += listed[train:val]
        parts["test"] += listed[val:]
    return parts


def split_off_val(trainval: Iterable[Entry], test: Iterable[Entry], seed: int = 1) -> Parts:
    """An official test split as it is, and 20 % of each class of train and val as val: CoOp's `split_trainval`.

    The draw of a class depends on `seed`, its name and its images' names alone.
    """
    parts: Parts = {"train": [], "val": [], "test": list(test)}
    for listed in _shuffled(trainval, seed):
        val = round(0.2 * len(listed))
        parts["val"] += listed[:val]
        parts["train"] += listed[val:]
    return parts


def _shuffled(entries: Iterable[Entry], seed: int) -> Iterator[list[Entry]]:
    """Each class's entries, by label, in an order that is the same on every machine."""
    classes: defaultdict[int, list[Entry]] = defaultdict(list)
    for entry in entries:
        classes[entry[1]].append(entry)
    for label in sorted(classes):
        listed = sorted(classes[label])
        random.Random(f"{seed}/{listed[0][2]}").shuffle(listed)
        yield listed


def keep_entries(file: Path, entries: Mapping[SplitName, Sequence[Entry]]) -> None:
    """Write down a split just drawn, or warn the caller's caller's caller that the folder cannot be written to."""
    try:
        write_entries(file, entries)
    except OSError as error:
        warnings.warn(
            f"{file} cannot be written ({error.strerror}): the split is drawn anew each time, and stays the same only "
            "as long as the images do",
            stacklevel=4,
        )


def write_entries(file: Path, entries: Mapping[SplitName, Sequence[Entry]]) -> None:
    """Write a split file in one step: another process sees all of it or nothing. Raises OSError."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps({part: entries[part] for part in get_args(SplitName)}, indent=1), "utf-8")
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)


def _entry(raw: Any, where: str) -> Entry:
    match raw:
        case [str(path), int(label), str(name)] if not isinstance(label, bool):
            pass
        case _:
            raise InputError(f"{where} is {str(raw)[:80]!r}, not [path, label, class name]")
    if not clean_name(name):
        raise InputError(f"{where}: class name {name!r} is empty")
    return path, label, name


def _check_paths(entries: Mapping[SplitName, Sequence[Entry]], file: Path) -> None:
    seen: dict[str, str] = {}
    for part, listed in entries.items():
        for i, (path, _, _) in enumerate(listed):
            if not path or path.startswith("/") or ".." in path.split("/"):
                raise InputError(
                    f"{file}: {part}[{i}]: path {path!r} must stay below the folder of images: no leading / and no .."
                )
            if path in seen:
                raise InputError(f"{file}: {path} is listed in {seen[path]} and again in {part}; keep one of them")
            seen[path] = part


def _check_labels(entries: Mapping[SplitName, Sequence[Entry]], file: Path) -> None:
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    for part, listed in entries.items():
        for path, label, name in listed:
            if names.setdefault(label, name) != name:
                raise InputError(f"{file}: {part}: {path} calls label {label} {name!r}, elsewhere {names[label]!r}")
            if (first := labels.setdefault(clean_name(name), label)) != label:
                raise InputError(f"{file}: {part}: {path} gives {name!r} label {label}, elsewhere {first}")
    if sorted(names) != list(range(len(names))):
        odd = next(label for expected, label in enumerate(sorted(names)) if label != expected)
        raise InputError(f"{file}: labels must be 0 to {len(names) - 1} without gaps; {names[odd]!r} has label {odd}")
