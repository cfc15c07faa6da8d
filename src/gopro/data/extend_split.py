"""Images that were added to a folder since its split was drawn: each gets a class and a part, and no other moves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import get_args

from gopro.data.class_names import class_key
from gopro.data.dataset import SplitName
from gopro.data.splits import Entries, Entry, split_in_three
from gopro.errors import InputError, first_few

_FILLING: tuple[SplitName, ...] = ("train", "test", "val")
"""The parts in the order in which a class of few images gets them."""


def unlisted(entries: Entries, present: Iterable[str], file: Path) -> list[Entry]:
    """Return an entry for each image that a split does not list.

    It gets the class of the listed images in its folder, or in the nearest folder above that has any. In a new class
    folder it gets the class of the folder's name, which is a new one, after the others, unless the split has it.

    Args:
        present: paths below the folder of images.
        file: the split file, for messages.

    Raises:
        InputError: the images beside a new one are of several classes.
    """
    listed = {path for part in entries.values() for path, _, _ in part}
    classes_in: dict[PurePosixPath, set[tuple[int, str]]] = {}
    for path, label, name in (entry for part in entries.values() for entry in part):
        for folder in _folders(path):
            classes_in.setdefault(folder, set()).add((label, name))
    names = {(label, name) for part in entries.values() for _, label, name in part}
    by_name = {class_key(name): (label, name) for label, name in names}
    added: list[Entry] = []
    for path in sorted(set(present) - listed):
        known = next((classes_in[folder] for folder in _folders(path) if folder in classes_in), None)
        if known is None:
            folder = PurePosixPath(path).parts[0]
            label, name = by_name.setdefault(class_key(folder), (len(by_name), folder))
        elif len(known) > 1:
            raise InputError(
                f"{file}: does not list {path}, and the images beside it are of the classes "
                f"{first_few(sorted(name for _, name in known))}; add it to the file, with its class"
            )
        else:
            [(label, name)] = known
        added.append((path, label, name))
    return added


def deal(entries: Entries, added: Iterable[Entry], seed: int = 1) -> Entries:
    """Deal new images to train, val and test, and return these alone.

    In each class the parts are filled up towards the shares that they have in the whole split. A new class is split
    50/20/30. The draw of a class depends only on `seed`, its name and the names of its images.
    """
    sizes = {part: len(entries[part]) for part in get_args(SplitName)}
    labels = Counter((label, part) for part, listed in entries.items() for _, label, _ in listed)
    classes: dict[int, list[Entry]] = {}
    for entry in sorted(added):
        classes.setdefault(entry[1], []).append(entry)
    dealt: Entries = {part: [] for part in get_args(SplitName)}
    for label, new in sorted(classes.items()):
        have = {part: labels[label, part] for part in get_args(SplitName)}
        if not any(have.values()):
            for part, listed in draw(new, seed).items():
                dealt[part] += listed
            continue
        random.Random(f"{seed}/{new[0][2]}").shuffle(new)
        for entry in new:
            count = sum(have.values()) + 1
            part = max(_FILLING, key=lambda part: sizes[part] * count / sum(sizes.values()) - have[part])
            have[part] += 1
            dealt[part].append(entry)
    return dealt


def draw(entries: Iterable[Entry], seed: int = 1) -> Entries:
    """Split each class 50/20/30, with at least one image to train on and, of two or more, one to test on."""
    entries = list(entries)
    sizes = Counter(label for _, label, _ in entries)
    splits = split_in_three([entry for entry in entries if sizes[entry[1]] > 1], seed)
    splits["train"] += [entry for entry in entries if sizes[entry[1]] == 1]
    return splits


def in_words(dealt: Mapping[SplitName, Iterable[Entry]]) -> str:
    """Say where images were dealt: `3 to train, 2 to test`."""
    return ", ".join(f"{len(list(listed))} to {part}" for part, listed in dealt.items() if listed)


def _folders(path: str) -> list[PurePosixPath]:
    """Return the folders above an image, the nearest first, without the folder of all images."""
    return list(PurePosixPath(path).parents)[:-1]
