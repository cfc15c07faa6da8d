"""Images in a folder, of class folders or of any kind, found by their names alone; no image is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from gopro.data.class_names import class_key
from gopro.data.image_file import SUFFIXES
from gopro.errors import InputError

_IGNORED = frozenset({"thumbs.db", "desktop.ini", "__macosx"})  # left behind by operating systems


def find_images(folder: str | Path) -> list[Path]:
    """Find the images in a folder and its subfolders by the endings of their names, sorted.

    Hidden files, those that operating systems leave behind (Thumbs.db) and files without an image's ending are ignored.

    Raises:
        InputError: no such folder, one of the folders cannot be read, or there is no image in them.

    Example:
        >>> import gopro
        >>> gopro.find_images("nowhere")
        Traceback (most recent call last):
        gopro.errors.InputError: nowhere: the folder cannot be read (No such file or directory)
    """
    folder = Path(folder)
    images = [path for path in files_below(folder) if is_image(path)]
    if not images:
        raise InputError(f"{folder}: no images in this folder ({' '.join(SUFFIXES)})")
    return images


find_pictures = find_images  # its name in version 0.1


def is_image(path: Path) -> bool:
    """Tell whether a file is an image by the ending of its name."""
    return path.name.lower().endswith(SUFFIXES)


def class_folders(root: Path) -> Iterable[str]:
    """List the names of the folders in `root`, sorted, without hidden ones and those left behind by operating systems.

    Raises:
        InputError: the folder cannot be read, or an image lies in it outside any class folder.
    """
    for entry in _visible_entries(root):
        if _is_folder(entry):
            yield entry.name
        elif is_image(Path(entry.name)):
            raise InputError(f"{entry.path}: an image outside any class folder; move it into one or remove it")


def images_by_class(root: Path, ignored: Collection[str] = ()) -> dict[str, list[str]]:
    """Map each class folder, except those `ignored`, to its images' paths below `root`; both are sorted.

    Raises:
        InputError: as `class_folders`; or a class folder has no images or a file that is not one, or two folders give
            the same class name.
    """
    images: dict[str, list[str]] = {}
    folder_of: dict[str, str] = {}
    for folder in class_folders(root):
        if folder in ignored:
            continue
        images[folder] = _images_below(root, folder)
        if not images[folder]:
            raise InputError(f"{root / folder}: no images in this class folder; add some or remove the folder")
        name = class_key(folder)
        if not name:
            raise InputError(f"{root / folder}: the folder's name gives an empty class name; rename it")
        if name in folder_of:
            raise InputError(
                f"{root}: folders {folder_of[name]} and {folder} give the same class name; rename one or merge them"
            )
        folder_of[name] = folder
    return images


def files_below(
    folder: Path, *, ignored: Path | None = None, on_error: Callable[[InputError], None] | None = None
) -> Iterator[Path]:
    """List all files in a folder and its subfolders, folder by folder, each sorted; links are followed.

    Args:
        ignored: a folder to leave out.
        on_error: takes the error of a folder that cannot be read or leads back to one above it; the files of the others
            are still listed. By default, the error is raised.

    Raises:
        InputError: see `on_error`.
    """
    return _files_below(folder, os.path.realpath(ignored) if ignored else "", on_error or _raise, ())


def first_few(names: list[str]) -> str:
    """Join the first three names, and say how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _files_below(
    folder: Path, ignored: str, on_error: Callable[[InputError], None], parents: tuple[str, ...]
) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real == ignored:
        return
    try:
        if real in parents:
            raise InputError(f"{folder}: a link that leads back to a folder above it; remove it")
        entries = _visible_entries(folder)
    except InputError as error:
        on_error(error)
        return
    for entry in entries:
        if _is_folder(entry):
            yield from _files_below(folder / entry.name, ignored, on_error, (*parents, real))
        else:
            yield folder / entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: reported as a file that cannot be opened
        return False


def _raise(error: InputError) -> None:
    raise error


def _images_below(root: Path, folder: str) -> list[str]:
    """List the paths below `root` of the images in one of its folders."""
    paths: list[str] = []
    for path in files_below(root / folder):
        if not is_image(path):
            endings = " ".join(SUFFIXES)
            raise InputError(f"{path}: not an image by its name ({endings}); convert, move or remove it")
        paths.append(path.relative_to(root).as_posix())
    return sorted(paths)


def _visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            visible = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _IGNORED]
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return sorted(visible, key=lambda entry: entry.name)
