"""What pictures lie in a folder of class-named folders: names alone are read, no picture is opened or looked up."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from gopro.data.pictures import SUFFIXES
from gopro.data.splits import clean_name
from gopro.errors import InputError

_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # what systems leave behind; hidden names go anyway


def class_folders(root: Path) -> Iterable[str]:
    """The names of the folders in `root`, sorted; hidden ones and what systems leave behind are passed over.

    Raises:
        InputError: the folder cannot be read, or a picture lies in it outside any class folder.
    """
    for entry in _kept(root):
        if entry.is_dir():
            yield entry.name
        elif entry.name.lower().endswith(SUFFIXES):
            raise InputError(f"{entry.path}: a picture outside any class folder; move it into one or remove it")


def pictures_by_class(root: Path, ignored: Collection[str] = ()) -> dict[str, list[str]]:
    """Class folder → its pictures' paths below `root`, both sorted, but for the folders `ignored`.

    Raises:
        InputError: as `class_folders`; a class folder has no pictures or a file that is none, or two give one name.
    """
    found: dict[str, list[str]] = {}
    names: dict[str, str] = {}
    for folder in class_folders(root):
        if folder in ignored:
            continue
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


def some(names: list[str]) -> str:
    """A few of the names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _pictures_below(folder: Path, prefix: str, above: tuple[str, ...]) -> list[str]:
    real = os.path.realpath(folder)
    if real in above:
        raise InputError(f"{folder}: a link that leads back to a folder above it; remove it")
    paths: list[str] = []
    for entry in _kept(folder):
        if entry.is_dir():
            paths += _pictures_below(Path(entry.path), f"{prefix}{entry.name}/", (*above, real))
        elif entry.name.lower().endswith(SUFFIXES):
            paths.append(prefix + entry.name)
        else:
            endings = " ".join(SUFFIXES)
            raise InputError(f"{entry.path}: not a picture by its name ({endings}); convert, move or remove it")
    return sorted(paths)


def _kept(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            kept = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _LITTER]
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return sorted(kept, key=lambda entry: entry.name)
