"""Sort images into one folder per class, by copies or links, without ever overwriting a file."""

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

from gopro.data.folders.sorted_folders import create_sorted_folder
from gopro.errors import InputError

Link = Literal["hard", "symbolic"]

UNSURE = "_unsure"
"""Folder of images with a low probability. It cannot clash: no folder of a class begins with an underscore."""

_PARTIAL = ".partial"
_MAX_FOLDER_BYTES = 200  # most file systems allow 255
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(1, 10))}  # on Windows


class Sorter:
    """Sorts images into one folder per class.

    An image keeps its file name; if another file has that name, it becomes `name (2).jpg`, and so on. An image that is
    already there, with the same content or as a link, is left alone, so that sorting again changes nothing. A copy is
    written to `.partial` beside the class folders and then moved into place. A copy that was interrupted is made again
    when its image is sorted again.

    Attributes:
        counts: class folder → number of sorted images in it.
        already: number of sorted images that were there before.

    Example:
        >>> sorter = Sorter(Path("sorted"), ["cat", "dog"], min_confidence=0.5)
        >>> sorter.add(Path("images/1.jpg"), "cat", probability=0.9)
        PosixPath('sorted/cat/1.jpg')
        >>> sorter.add(Path("images/2.jpg"), "cat", probability=0.4)
        PosixPath('sorted/_unsure/2.jpg')
        >>> sorter.close()
    """

    def __init__(self, root: Path, classnames: Sequence[str], *, link: Link | None = None, min_confidence: float = 0.0):
        """
        Args:
            root: the folder of the class folders; created with the first image, and marked, so that it does not pass
                for a class where it lies among folders of images.
            link: make links instead of copies; symbolic links contain the absolute path of the image.
            min_confidence: images with a lower probability go to `UNSURE`.
        """
        self.root, self.link, self.min_confidence = root, link, min_confidence
        self.folders = folder_names(classnames)
        self.counts: Counter[str] = Counter()
        self.already = 0
        self._numbers: dict[tuple[str, str], _Numbers] = {}  # by folder and case-folded file name
        self._placed: dict[tuple[str, str], Path] = {}  # by folder and absolute path of the image

    def add(self, image: Path, name: str, probability: float) -> Path:
        """Sort an image into the folder of the class `name`, and return its new path.

        Raises:
            InputError: the folder cannot be written to, or does not support links.
        """
        folder = self.folders[name] if probability >= self.min_confidence else UNSURE
        source = os.path.abspath(image)
        if (target := self._placed.get((folder, source))) is not None:  # the same image again
            return target
        try:
            target = self._place(Path(source), folder)
        except OSError as error:
            advice = "; give --link symbolic, or no --link to copy" if self.link == "hard" else ""
            action = f"linked into {self.root / folder}" if self.link else f"copied to {self.root / folder}"
            raise InputError(f"{image} cannot be {action}: {error.strerror}{advice}") from error
        self._placed[folder, source] = target
        self.counts[folder] += 1
        return target

    def close(self) -> None:
        """Remove the folder of partial copies if it is empty."""
        with suppress(OSError):
            (self.root / _PARTIAL).rmdir()

    def _place(self, source: Path, folder: str) -> Path:
        create_sorted_folder(self.root)
        (self.root / folder).mkdir(exist_ok=True)
        numbers = self._numbers.setdefault((folder, source.name.casefold()), _Numbers())
        for number in numbers:
            target = self.root / folder / _numbered(source, number)
            created = not os.path.lexists(target) and self._create(source, target)
            if created or self._is_same(source, target):
                self.already += not created
                numbers.taken.discard(number)
                return target
            numbers.taken.add(number)
        raise AssertionError("the numbers never end")

    def _create(self, source: Path, target: Path) -> bool:
        """Copy or link; return False if another process has created the target in the meantime."""
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
                os.link(partial, target)  # unlike a rename, this fails if the target exists
            except FileExistsError:
                raise
            except OSError:  # the file system has no hard links
                if os.path.lexists(target):
                    raise FileExistsError from None
                partial.rename(target)
        finally:
            partial.unlink(missing_ok=True)

    def _is_same(self, source: Path, target: Path) -> bool:
        if not target.is_file():  # a folder or a dangling link
            return False
        return target.samefile(source) or (self.link is None and filecmp.cmp(source, target, shallow=False))


class _Numbers:
    """Numbers to try for a file name: those taken by other files, whose content may be the same, then new ones.

    Numbers of images that this sorter has placed are not tried again.
    """

    def __init__(self) -> None:
        self.taken: set[int] = set()
        self.last = 0

    def __iter__(self) -> Iterator[int]:
        yield from sorted(self.taken)
        while True:
            self.last += 1
            yield self.last


def folder_names(classnames: Sequence[str]) -> dict[str, str]:
    """Return a folder name for each distinct class name, valid on every system and unique even if case is ignored.

    Names change as little as possible: separators, control characters and characters that Windows forbids become
    underscores; dots and spaces at the ends and leading underscores are removed; long names are cut.

    Example:
        >>> folder_names(["red fox", "AC/DC", "crane", "Crane"])
        {'red fox': 'red fox', 'AC/DC': 'AC_DC', 'crane': 'crane', 'Crane': 'Crane (2)'}
    """
    names: dict[str, str] = {}
    taken: set[str] = set()
    for classname in dict.fromkeys(classnames):  # two classes of one name share a folder
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
    text = _cut(text.lstrip(" ._"), _MAX_FOLDER_BYTES).rstrip(" .") or "class"
    return f"{text}_" if text.partition(".")[0].rstrip().casefold() in _RESERVED else text


def _numbered(source: Path, number: int) -> str:
    """Return the file name with its number, cut to the 255 bytes of most file systems; the first has no number."""
    if number == 1:
        return source.name
    ending = f" ({number}){source.suffix}"
    return _cut(source.stem, 255 - len(os.fsencode(ending))) + ending


def _cut(text: str, max_bytes: int) -> str:
    """Cut the text to a number of bytes, between characters."""
    while len(os.fsencode(text)) > max_bytes:
        text = text[:-1]
    return text
