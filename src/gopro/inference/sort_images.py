"""Images copied or linked into a folder a class, so that nothing that lies there is ever overwritten."""

from __future__ import annotations

import filecmp
import hashlib
import os
import shutil
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from gopro.errors import InputError

Link = Literal["hard", "symbolic"]

UNSURE = "_unsure"
"""Folder of what is not sure enough. No class's folder begins with an underscore."""

_PARTIAL = ".partial"
_LONGEST = 200  # bytes of a folder name; most file systems end at 255
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}  # Windows


class Sorter:
    """Puts images into folders, one a class.

    An image keeps its file name. Where another has it, from another folder say, it is called `name (2).jpg`, and so
    on. An image that is there already, by its content or as a link, is left alone, so that doing the same again
    changes nothing. A copy is made beside the class folders, in `.partial`, and then put in its place whole; one that a
    kill left there is made again when its image comes again.

    Attributes:
        counts: class folder → images that are in it, of those that were given.
        already: how many of them were there before.
    """

    def __init__(self, root: Path, classnames: Sequence[str], *, link: Link | None = None, min_confidence: float = 0.0):
        """
        Args:
            root: the folder to make class folders in; it is made with the first image.
            link: links in the place of copies; symbolic ones hold the image's absolute path.
            min_confidence: images whose probability is below it go to `UNSURE`.
        """
        self.root, self.link, self.min_confidence = root, link, min_confidence
        self.folders = folder_names(classnames)
        self.counts: Counter[str] = Counter()
        self.already = 0
        self._numbers: dict[tuple[str, str], _Numbers] = {}  # (folder, file name where case does not count) → those
        self._placed: dict[tuple[str, str], Path] = {}

    def add(self, image: Path, name: str, probability: float) -> Path:
        """Puts an image into the folder of the class `name`.

        Returns: where it is now.

        Raises:
            InputError: the folder cannot be written to, or links are not possible there.
        """
        folder = self.folders[name] if probability >= self.min_confidence else UNSURE
        source = os.path.abspath(image)
        if (target := self._placed.get((folder, source))) is not None:  # given twice
            return target
        try:
            target = self._place(Path(source), folder)
        except OSError as error:
            advice = "; give --link symbolic, or no --link to copy" if self.link == "hard" else ""
            raise InputError(f"{image} cannot be put into {self.root / folder}: {error.strerror}{advice}") from error
        self._placed[folder, source] = target
        self.counts[folder] += 1
        return target

    def close(self) -> None:
        """Removes the folder of partial copies, if there is nothing in it."""
        with suppress(OSError):
            (self.root / _PARTIAL).rmdir()

    def _place(self, source: Path, folder: str) -> Path:
        (self.root / folder).mkdir(parents=True, exist_ok=True)
        numbers = self._numbers.setdefault((folder, source.name.casefold()), _Numbers())
        for number in numbers:
            target = self.root / folder / _numbered(source, number)
            made = not os.path.lexists(target) and self._make(source, target)
            if made or self._is_there(source, target):
                self.already += not made
                numbers.others.discard(number)
                return target
            numbers.others.add(number)
        raise AssertionError("there is always a further number")

    def _make(self, source: Path, target: Path) -> bool:
        """Whether the target could be made; not so if somebody else just did."""
        try:
            if self.link == "hard":
                os.link(os.path.realpath(source), target)
            elif self.link == "symbolic":
                target.symlink_to(source)
            else:
                self._copy(source, target)
        except FileExistsError:
            return False
        return True

    def _copy(self, source: Path, target: Path) -> None:
        partial = self.root / _PARTIAL / hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
        partial.parent.mkdir(exist_ok=True)
        try:
            shutil.copy2(source, partial)
            try:
                os.link(partial, target)  # unlike a rename, fails where there is a file
            except FileExistsError:
                raise
            except OSError:  # no hard links on this file system
                if os.path.lexists(target):
                    raise FileExistsError from None
                partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)

    def _is_there(self, source: Path, target: Path) -> bool:
        if not target.is_file():  # a folder, or a link to nothing
            return False
        return target.samefile(source) or (self.link is None and filecmp.cmp(source, target, shallow=False))


class _Numbers:
    """The numbers for a file name that no image of this sorter has: those of other files, then fresh ones."""

    def __init__(self) -> None:
        self.others: set[int] = set()
        self.last = 0

    def __iter__(self) -> Iterator[int]:
        yield from sorted(self.others)
        while True:
            self.last += 1
            yield self.last


def folder_names(classnames: Sequence[str]) -> dict[str, str]:
    """Class name → a name for its folder that every system takes, each its own also where case does not count.

    Only what has to be is changed: separators, control characters and what Windows forbids become underscores, dots and
    spaces at the ends and underscores in front go, a long name is cut.
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for classname in classnames:
        safe = _safe(classname)
        candidate, number = safe, 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{safe} ({number})"
        taken.add(candidate.casefold())
        names[classname] = candidate
    return names


def _safe(name: str) -> str:
    text = unicodedata.normalize("NFC", name)
    text = "".join("_" if c in '<>:"/\\|?*' or not c.isprintable() else c for c in text)
    text = _cut(text.lstrip(" ._"), _LONGEST).rstrip(" .") or "class"
    return f"{text}_" if text.partition(".")[0].rstrip().casefold() in _RESERVED else text


def _numbered(source: Path, number: int) -> str:
    """The image's file name; from the second of that name on with a number, and cut to make room for it."""
    if number == 1:
        return source.name
    ending = f" ({number}){source.suffix}"
    return _cut(source.stem, 255 - len(os.fsencode(ending))) + ending


def _cut(text: str, most: int) -> str:
    """The text cut to so many bytes, between characters."""
    while len(os.fsencode(text)) > most:
        text = text[:-1]
    return text
