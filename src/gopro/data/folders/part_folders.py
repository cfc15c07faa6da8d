"""The folders train, val and test, under the names that people and tools give them: `valid`, `Training`, `test_set`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import get_args

from gopro.data.dataset import SplitName
from gopro.errors import InputError, first_few

_NAMES: dict[str, SplitName] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "test": "test",
    "tests": "test",
    "testing": "test",
}
_ENDINGS = ("set", "data", "images", "split")


def part_of(folder: str) -> SplitName | None:
    """Return the part of a data set that a folder's name means, in any case; None for other names.

    Example:
        >>> part_of("Validation"), part_of("training_set"), part_of("owl")
        ('val', 'train', None)
    """
    name = "".join(letter for letter in folder.casefold() if letter.isalnum())
    for ending in _ENDINGS:
        if len(name) > len(ending):
            name = name.removesuffix(ending)
    return _NAMES.get(name)


def find_parts(root: Path, folders: Iterable[str]) -> dict[SplitName, str]:
    """Map each part to its folder among the `folders` in `root`; empty if they are class folders.

    They are parts if all of them have a part's name, so that a class may be called `train`.

    Raises:
        InputError: two folders mean the same part, or folders of several parts lie beside others.
    """
    folders = list(folders)
    named = {folder: part for folder in folders if (part := part_of(folder))}
    parts: dict[SplitName, str] = {}
    if len(named) < len(folders) and len(set(named.values())) < 2:
        return parts
    if others := [folder for folder in folders if folder not in named]:
        raise InputError(
            f"{root}: holds {' and '.join(named)} beside {first_few(others)}; give it only train, test and perhaps "
            "val, or only class folders"
        )
    for part in get_args(SplitName):
        found = [folder for folder in folders if named[folder] == part]
        if len(found) > 1:
            raise InputError(f"{root}: {' and '.join(found)} both mean {part}; merge them into one folder")
        if found:
            parts[part] = found[0]
    return parts


def training_parts(root: Path, parts: dict[SplitName, str]) -> dict[SplitName, str]:
    """Return the parts to train and test on. If there is no test folder, the images of val are the test images.

    Raises:
        InputError: there is no train folder, or nothing beside it.
    """
    if "train" not in parts:
        found = " and ".join(parts.values())
        raise InputError(
            f"{root}: has {found} but no train folder to train on; add one. To test a run on it: gopro eval RUN --data "
            f"{root}"
        )
    if "test" in parts:
        return parts
    if "val" not in parts:
        train = parts["train"]
        raise InputError(
            f"{root}: has no folder beside {train}; add test, or give {root / train} to have a split drawn from it"
        )
    return {"train": parts["train"], "test": parts["val"]}


def tested_part(parts: dict[SplitName, str]) -> str:
    """Return the folder of the images to test on: test, else val, else train."""
    return next(parts[part] for part in ("test", "val", "train") if part in parts)
