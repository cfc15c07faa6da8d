"""Readers of the original annotations of each benchmark, one function per format.

Each takes the paths of its files and returns the entries of train, val and test, with the labels and class names of
CoOp's `datasets/*.py`. Where CoOp draws a split at random, `gopro.data.splits` draws it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from gopro.data.folders.find_images import images_by_class
from gopro.data.splits import Entries, Entry, check_entries, split_in_three, split_off_val
from gopro.errors import InputError

Element = TypeVar("Element")


def folders(
    images: Path, *, ignored: Collection[str] = (), renamed: Mapping[str, str] = MappingProxyType({})
) -> Entries:
    """Read class folders, split 50/20/30. Labels follow the sorted folder names, before classes are `renamed`.

    Raises:
        InputError: as `images_by_class`.
    """
    paths = images_by_class(images, ignored)
    return split_in_three(
        (path, label, renamed.get(folder, folder)) for label, folder in enumerate(paths) for path in paths[folder]
    )


def pets(trainval: Path, test: Path) -> Entries:
    """Read Oxford-IIIT Pet's lists: lines of image, label from 1, species, breed within the species.

    The class name is the image's name without its number, in lower case.
    """

    def entries(file: Path) -> list[Entry]:
        rows = read_rows(file, r"(([^/]+)_\d+) (\d+) \d+ \d+", "an image and three numbers")
        return [(f"{image}.jpg", int(label) - 1, breed.lower()) for image, breed, label in rows]

    return check_entries(split_off_val(entries(trainval), entries(test)), trainval.parent)


def cars(trainval: Path, test: Path, meta: Path) -> Entries:
    """Read Stanford Cars' MATLAB files; the year moves from the end of a class name to its front."""

    def name(element: Any) -> str:
        *words, year = str(element[0]).split()
        return " ".join([year, *words])

    def annotation(element: Any) -> tuple[str, int]:
        return str(element["fname"][0]), int(element["class"][0, 0])

    names = _mat(meta, "class_names", name)

    def entries(file: Path, folder: str) -> list[Entry]:
        labels = _mat(file, "annotations", annotation, "fname", "class")
        return [(f"{folder}/{image}", label - 1, _nth(names, label, file)) for image, label in labels]

    return check_entries(split_off_val(entries(trainval, "cars_train"), entries(test, "cars_test")), trainval.parent)


def flowers(labels: Path, names: Path) -> Entries:
    """Read Flowers102's labels (from 1) of its numbered images and the JSON object of label → name; split 50/20/30.

    CoOp does not use the official splits of 10, 10 and the remaining images per class.
    """
    try:
        named: Any = json.loads(names.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{names}: invalid JSON ({error}); restore it") from error
    entries: list[Entry] = []
    for i, label in enumerate(_mat(labels, "labels", int), start=1):
        name = named.get(str(label)) if isinstance(named, dict) else None
        if not isinstance(name, str):
            raise InputError(f"{names}: has no name for the label {label} of {labels}; restore it")
        entries.append((f"image_{i:05}.jpg", label - 1, name))
    return check_entries(split_in_three(entries), labels)


def aircraft(variants: Path, train: Path, val: Path, test: Path) -> Entries:
    """Read FGVC-Aircraft's official splits by variant: lines of image and variant."""
    label_of = {name: label for label, (name,) in enumerate(read_rows(variants, r"(.+)", "a variant"))}

    def entries(file: Path) -> list[Entry]:
        rows = read_rows(file, r"(\S+) (.+)", "an image and a variant")
        return [(f"{image}.jpg", _label(label_of, name, file, variants), name) for image, name in rows]

    return check_entries({"train": entries(train), "val": entries(val), "test": entries(test)}, train.parent)


def sun(classes: Path, trainval: Path, test: Path) -> Entries:
    """Read SUN397's first partition: lines of /LETTER/CLASS/IMAGE, where CLASS is one or two folders.

    In the class name the second folder comes first (`outdoor athletic_field`), and the letter is dropped.
    """
    label_of = {name: label for label, (name,) in enumerate(read_rows(classes, r"/(\w/.+)", "/LETTER/CLASS"))}

    def entries(file: Path) -> list[Entry]:
        rows = read_rows(file, r"/((\w/.+)/[^/]+)", "/LETTER/CLASS/IMAGE")
        return [
            (image, _label(label_of, name, file, classes), " ".join(reversed(name.split("/")[1:])))
            for image, name in rows
        ]

    return check_entries(split_off_val(entries(trainval), entries(test)), classes.parent)


def ucf(classes: Path, trainval: Path, test: Path) -> Entries:
    """Read UCF101's first split of its videos, of which the images are the middle frames.

    Actions are written in CamelCase; folders and class names have underscores between the words.
    """
    label_of = {name: int(label) - 1 for label, name in read_rows(classes, r"(\d+) (\w+)", "a label and an action")}

    def entries(file: Path) -> list[Entry]:
        listed: list[Entry] = []
        for action, video in read_rows(file, r"(\w+)/([^/ ]+)\.avi(?: \d+)?", "ACTION/VIDEO.avi"):
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            listed.append((f"{name}/{video}.jpg", _label(label_of, action, file, classes), name))
        return listed

    return check_entries(split_off_val(entries(trainval), entries(test)), classes.parent)


def read_rows(file: Path, pattern: str, form: str) -> Iterator[tuple[str, ...]]:
    """Yield the groups of `pattern` in each line that is not blank."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as text ({error}); restore it") from error
    for number, line in enumerate(map(str.strip, lines), start=1):
        if line:
            if not (match := re.fullmatch(pattern, line)):
                raise InputError(f"{file}: line {number} is {line[:80]!r}, not {form}; restore the file")
            yield match.groups()


def _mat(file: Path, variable: str, read: Callable[[Any], Element], *fields: str) -> list[Element]:
    """Apply `read` to each element, which must have `fields`, in the first row of a variable of a MATLAB file."""
    from scipy.io import loadmat  # slow to import, and most commands read no such file

    try:
        row = loadmat(file, appendmat=False, variable_names=[variable])[variable][0]
        if missing := set(fields) - set(row.dtype.names or ()):
            raise KeyError(*missing)
        return [read(element) for element in row]
    except Exception as error:  # scipy raises nearly anything on damaged bytes
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{file}: not a MATLAB file with the variable {variable} ({reason}); restore it") from error


def _nth(names: list[str], label: int, file: Path) -> str:
    if not 1 <= label <= len(names):
        raise InputError(f"{file}: has the label {label}, but there are {len(names)} classes; restore the annotations")
    return names[label - 1]


def _label(label_of: Mapping[str, int], name: str, file: Path, classes: Path) -> int:
    if name not in label_of:
        raise InputError(f"{file}: has the class {name[:80]!r}, which {classes} lacks; restore the two files")
    return label_of[name]
