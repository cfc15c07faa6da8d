"""What images lie in a folder, of class-named folders or of any: names alone are read, no image is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from gopro.data.image_file import SUFFIXES
from gopro.data.splits import clean_name
from gopro.errors import InputError

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what systems leave behind; hidden names go anyway


def class_folders(root: Path) -> Iterable[str]:
    """The names of the folders in `root`, sorted; hidden ones and what systems leave behind are passed over.

    Raises:
        InputError: the folder cannot be read, or an image lies in it outside any class folder.
    """
    for entry in _kept(root):
        if _is_folder(entry):
            yield entry.name
        elif entry.name.lower().endswith(SUFFIXES):
            raise InputError(f"{entry.path}: an image outside any class folder; move it into one or remove it")


def images_by_class(root: Path, ignored: Collection[str] = ()) -> dict[str, list[str]]:
    """Class folder → its images' paths below `root`, both sorted, but for the folders `ignored`.

    Raises:
        InputError: as `class_folders`; a class folder has no images or a file that is none, or two give one name.
    """
    found: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for folder in class_folders(root):
        if folder in ignored:
            continue
        found[folder] = _images_below(root, folder)
        if not found[folder]:
            raise InputError(f"{root / folder}: no images in this class folder; add some or remove the folder")
        name = clean_name(folder).casefold()
        if not name:
            raise InputError(f"{root / folder}: the folder's name gives an empty class name; rename it")
        if name in names:
            raise InputError(
                f"{root}: folders {names[name]} and {folder} give the same class name; rename one or merge"
            )
        names[name] = folder
    return found


def some(names: list[str]) -> str:
    """A few of the names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def find_images(folder: str | Path) -> list[Path]:
    """The images in a folder and the folders in it, by the endings of their names, sorted.

    Hidden files, what systems leave behind (Thumbs.db) and files that are no images by name are passed over.

    Raises:
        InputError: there is no such folder, one of the folders cannot be read, or no image is in them.
    """
    folder = Path(folder)
    found = [path for path in files_below(folder) if is_image(path)]
    if not found:
        raise InputError(f"{folder}: no images in this folder ({' '.join(SUFFIXES)})")
    return found


find_pictures = find_images  # its name in version 0.1


def is_image(path: Path) -> bool:
    """Whether a file counts as an image by its name."""
    return path.name.lower().endswith(SUFFIXES)


def files_below(
    folder: Path, *, ignored: Path | None = None, refuse: Callable[[InputError], None] | None = None
) -> Iterator[Path]:
    """All files in a folder and the folders in it, folder by folder, each sorted; links are followed.

    Args:
        ignored: a folder to pass over.
        refuse: is told of a folder that cannot be read or leads back to one above it, and the others are gone on with;
            if not given, it is raised.

    Raises:
        InputError: see `refuse`.
    """
    return _files_below(folder, os.path.realpath(ignored) if ignored else "", refuse or _raise, ())


def _files_below(
    folder: Path, ignored: str, refuse: Callable[[InputError], None], above: tuple[str, ...]
) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real == ignored:
        return
    try:
        if real in above:
            raise InputError(f"{folder}: a link that leads back to a folder above it; remove it")
        entries = _kept(folder)
    except InputError as error:
        refuse(error)
        return
    for entry in entries:
        if _is_folder(entry):
            yield from _files_below(folder / entry.name, ignored, refuse, (*above, real))
        else:
            yield folder / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Also of a link that leads to itself, at which `is_dir` raises: it is a file that cannot be opened."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def _raise(error: InputError) -> None:
    raise error


def _images_below(root: Path, folder: str) -> list[str]:
    """Paths below `root` of the images in one of its folders."""
    paths: list[str] = []
    for path in files_below(root / folder):
        if not is_image(path):
            endings = " ".join(SUFFIXES)
            raise InputError(f"{path}: not an image by its name ({endings}); convert, move or remove it")
        paths.append(path.relative_to(root).as_posix())
    return sorted(paths)


def _kept(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            kept = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _LITTER]
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return sorted(kept, key=lambda entry: entry.name)
