"""Readers of the formats that the benchmarks' makers published them in, one a format.

Each takes the paths of what it reads and gives the entries of train, val and test, with the labels and class names
that CoOp's `datasets/*.py` gives them. Where CoOp draws a part at random, the draw is that of `splits.py`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from gopro.data.find_images import class_folders, images_by_class, some
from gopro.data.splits import Entry, Parts, check_entries, split_in_three, split_off_val
from gopro.errors import InputError

Element = TypeVar("Element")


def folders(images: Path, *, ignored: Collection[str] = (), renamed: Mapping[str, str] = MappingProxyType({})) -> Parts:
    """Class-named folders, split 50/20/30. Labels follow the sorted folder names, whatever the classes are `renamed`.

    Raises:
        InputError: as `images_by_class`.
    """
    found = images_by_class(images, ignored)
    return split_in_three(
        (path, label, renamed.get(folder, folder))
        for label, folder in enumerate(sorted(found))
        for path in found[folder]
    )


def pets(trainval: Path, test: Path) -> Parts:
    """Oxford-IIIT Pet's lists: lines of image, label from 1, species, breed within the species.

    The class name is the image's, less its number, in lower case.
    """

    def entries(file: Path) -> list[Entry]:
        rows = _rows(file, r"(([^/]+)_\d+) (\d+) \d+ \d+", "an image and three numbers")
        return [(f"{image}.jpg", int(label) - 1, breed.lower()) for image, breed, label in rows]

    return _checked(split_off_val(entries(trainval), entries(test)), trainval.parent)


def cars(trainval: Path, test: Path, meta: Path) -> Parts:
    """Stanford Cars' annotations in MATLAB's format; the year goes from the end of a class name to its front."""

    def name(element: Any) -> str:
        *words, year = str(element[0]).split()
        return " ".join([year, *words])

    def annotation(element: Any) -> tuple[str, int]:
        return str(element["fname"][0]), int(element["class"][0, 0])

    names = _mat(meta, "class_names", name)

    def entries(file: Path, folder: str) -> list[Entry]:
        labels = _mat(file, "annotations", annotation, "fname", "class")
        return [(f"{folder}/{image}", label - 1, _nth(names, label, file)) for image, label in labels]

    return _checked(split_off_val(entries(trainval, "cars_train"), entries(test, "cars_test")), trainval.parent)


def flowers(labels: Path, names: Path) -> Parts:
    """Flowers102's labels from 1 of its numbered images, and the JSON object of label → name; split 50/20/30.

    CoOp leaves the official parts, of 10, 10 and the other images a class, aside.
    """
    try:
        named: Any = json.loads(names.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{names}: no valid JSON ({error}); restore it") from error
    entries: list[Entry] = []
    for i, label in enumerate(_mat(labels, "labels", int), start=1):
        name = named.get(str(label)) if isinstance(named, dict) else None
        if not isinstance(name, str):
            raise InputError(f"{names}: has no name for the label {label} of {labels}; restore it")
        entries.append((f"image_{i:05}.jpg", label - 1, name))
    return _checked(split_in_three(entries), labels)


def aircraft(variants: Path, train: Path, val: Path, test: Path) -> Parts:
    """FGVC-Aircraft's own three parts by variant: lines of image and variant; labels follow the list of variants."""
    label_of = {name: label for label, (name,) in enumerate(_rows(variants, r"(.+)", "a variant"))}

    def entries(file: Path) -> list[Entry]:
        rows = _rows(file, r"(\S+) (.+)", "an image and a variant")
        return [(f"{image}.jpg", _label(label_of, name, file, variants), name) for image, name in rows]

    return _checked({"train": entries(train), "val": entries(val), "test": entries(test)}, train.parent)


def sun(classes: Path, trainval: Path, test: Path) -> Parts:
    """SUN397's first partition: lines of /LETTER/CLASS/IMAGE, CLASS being of one or two folders.

    In the class name the second folder comes first (`outdoor athletic_field`), and the letter goes.
    """
    label_of = {name: label for label, (name,) in enumerate(_rows(classes, r"/(\w/.+)", "/LETTER/CLASS"))}

    def entries(file: Path) -> list[Entry]:
        rows = _rows(file, r"/((\w/.+)/[^/]+)", "/LETTER/CLASS/IMAGE")
        return [
            (image, _label(label_of, name, file, classes), " ".join(reversed(name.split("/")[1:])))
            for image, name in rows
        ]

    return _checked(split_off_val(entries(trainval), entries(test)), classes.parent)


def ucf(classes: Path, trainval: Path, test: Path) -> Parts:
    """UCF101's first split of its videos, the images being their middle frames.

    Actions are written in CamelCase; folders and class names have underscores between the words.
    """
    label_of = {name: int(label) - 1 for label, name in _rows(classes, r"(\d+) (\w+)", "a label and an action")}

    def entries(file: Path) -> list[Entry]:
        listed: list[Entry] = []
        for action, video in _rows(file, r"(\w+)/([^/ ]+)\.avi(?: \d+)?", "ACTION/VIDEO.avi"):
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            listed.append((f"{name}/{video}.jpg", _label(label_of, action, file, classes), name))
        return listed

    return _checked(split_off_val(entries(trainval), entries(test)), classes.parent)


def imagenet(train: Path, val: Path, classnames: Path) -> Parts:
    """ImageNet's folders, named by WordNet id; its validation images are `test`, as everywhere in the field.

    `val` is empty: CoOp puts the test images there too, and a model chosen by them would have seen the test labels.
    """
    names = _wnids(classnames)
    found = _named(images_by_class(train), names, train, classnames)
    held_out = _named(images_by_class(val), names, val, classnames)
    if differing := sorted(set(found) ^ set(held_out)):
        raise InputError(f"{val}: its folders and those of {train} must be the same, and are not: {some(differing)}")
    return {
        "train": _by_folder(found, names, f"{train.name}/"),
        "val": [],
        "test": _by_folder(held_out, names, f"{val.name}/"),
    }


def wnid_folders(images: Path, classnames: Path) -> Parts:
    """A variant of ImageNet to test on, in folders named by WordNet id; labels follow the folders that are there."""
    names = _wnids(classnames)
    found = _named(images_by_class(images), names, images, classnames)
    return {"train": [], "val": [], "test": _by_folder(found, names)}


def numbered_folders(images: Path, classnames: Path) -> Parts:
    """A variant of ImageNet to test on, in folders 0, 1, ... that count the lines of the class names."""
    names = {str(number): name for number, name in enumerate(_wnids(classnames).values())}
    present = set(class_folders(images))
    if differing := sorted(present ^ set(names)):
        raise InputError(
            f"{images}: its folders must be 0 to {len(names) - 1}, one a line of {classnames}; see {some(differing)}"
        )
    found = images_by_class(images)
    return {"train": [], "val": [], "test": _by_folder({number: found[number] for number in names}, names)}


def _by_folder(found: Mapping[str, list[str]], names: Mapping[str, str], prefix: str = "") -> list[Entry]:
    return [(prefix + path, label, names[folder]) for label, folder in enumerate(found) for path in found[folder]]


def _named(
    found: dict[str, list[str]], names: Mapping[str, str], images: Path, classnames: Path
) -> dict[str, list[str]]:
    if nameless := [folder for folder in found if folder not in names]:
        raise InputError(f"{classnames}: has no name for {some(nameless)} of {images}; restore it or move them away")
    return found


def _wnids(file: Path) -> dict[str, str]:
    """CoOp's classnames.txt: WordNet id → class name. Two ids may have one name, as `missile` has."""
    names: dict[str, str] = {}
    for wnid, name in _rows(file, r"(n\d{8}) (.+)", "a WordNet id and a class name"):
        if wnid in names:
            raise InputError(f"{file}: names {wnid} twice; restore it")
        names[wnid] = name
    return names


def _rows(file: Path, pattern: str, form: str) -> Iterator[tuple[str, ...]]:
    """The groups of `pattern` in each line that is not blank."""
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
    """What `read` makes of each element, which must have `fields`, in the first row of a variable of a MATLAB file."""
    from scipy.io import loadmat  # loaded where it is needed: most commands read no such file

    try:
        row = loadmat(file, appendmat=False, variable_names=[variable])[variable][0]
        if missing := set(fields) - set(row.dtype.names or ()):
            raise KeyError(*missing)
        return [read(element) for element in row]
    except Exception as error:  # on damaged bytes scipy raises nearly anything
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(f"{file}: no MATLAB file with {variable} in it ({reason}); restore it") from error


def _nth(names: list[str], label: int, file: Path) -> str:
    if not 1 <= label <= len(names):
        raise InputError(f"{file}: has the label {label}, of {len(names)} classes; restore the annotations")
    return names[label - 1]


def _label(label_of: Mapping[str, int], name: str, file: Path, classes: Path) -> int:
    if name not in label_of:
        raise InputError(f"{file}: has the class {name[:80]!r}, which {classes} lacks; restore the two files")
    return label_of[name]


def _checked(parts: Parts, where: Path) -> Parts:
    check_entries(parts, where)
    return parts
