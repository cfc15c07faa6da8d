"""Images in a folder, of class folders or of any kind, found by their names alone; no image is opened."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from gopro.data.class_names import class_key
from gopro.data.folders.run_folders import holds_runs, is_run_folder
from gopro.data.folders.sorted_folders import MARK, is_sorted_folder
from gopro.data.images.heif import HEIF_SUFFIXES, INSTALL_HEIF, reads_heif
from gopro.data.images.image_file import SUFFIXES
from gopro.errors import InputError, first_few

SIDE_SUFFIXES = (".txt", ".json", ".jsonl", ".xml", ".csv", ".tsv", ".yaml", ".yml", ".md", ".html")
"""File name endings, in lower case, of the notes and labels that lie beside images; they are passed over."""

OnError = Callable[[InputError], None]
"""Takes an error that is to be reported with others, where it would otherwise be raised."""

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


def is_side_file(path: Path) -> bool:
    """Tell whether a file is one of notes or labels by the ending of its name."""
    return path.name.lower().endswith(SIDE_SUFFIXES)


def class_folders(root: Path, on_error: OnError | None = None) -> Iterable[str]:
    """List the names of the folders in `root`, sorted, without hidden ones and those left behind by operating systems.

    Folders that hold runs, and those that gopro predict sorted images into, are passed over with a warning.

    Args:
        on_error: takes the error of an image outside any class folder. By default, it is raised.

    Raises:
        InputError: the folder cannot be read, or holds images but no folders; or see `on_error`.
    """
    report, entries = on_error or raise_error, _visible_entries(root)
    stray = [entry.path for entry in entries if is_image(Path(entry.name)) and not _is_folder(entry)]
    if stray and not any(map(_is_folder, entries)):
        raise InputError(
            f"{root}: {len(stray)} images, but no class folders; put the images of each class into a folder named "
            f"after it, or label them in {root / 'labels.csv'}, with the columns path and label"
        )
    for path in stray:
        report(InputError(f"{path}: an image outside any class folder; move it into one or remove it"))
    for entry in filter(_is_folder, entries):
        if holds_runs(entry.path, SUFFIXES):
            _warn_of_runs(entry.path)
        elif is_sorted_folder(entry.path):
            _warn_of_sorted(entry.path)
        else:
            yield entry.name


def images_by_class(root: Path, ignored: Collection[str] = (), on_error: OnError | None = None) -> dict[str, list[str]]:
    """Map each class folder, except those `ignored`, to its images' paths below `root`; both are sorted.

    Files of notes and labels, such as `.txt` and `.json`, are passed over.

    Args:
        on_error: takes the errors, and what they concern is left out of the result. By default, the first is raised.

    Raises:
        InputError: `root` cannot be read. See `on_error`: as `class_folders`; a class folder has no images or another
            file that is not one; two folders give the same class name; there are HEIC images and no pillow-heif.
    """
    report = on_error or raise_error
    images: dict[str, list[str]] = {}
    folder_of: dict[str, str] = {}
    for folder in class_folders(root, on_error):
        if folder in ignored:
            continue
        paths = _images_below(root, folder, on_error)
        name = class_key(folder)
        if not paths:
            report(InputError(f"{root / folder}: no images in this class folder; add some or remove the folder"))
        elif not name:
            report(InputError(f"{root / folder}: the folder's name gives an empty class name; rename it"))
        elif name in folder_of:
            names = f"{folder_of[name]} and {folder}"
            report(InputError(f"{root}: folders {names} give the same class name; rename one or merge them"))
        else:
            images[folder], folder_of[name] = paths, folder
    if on_error is None:
        _check_heif(root, [path for paths in images.values() for path in paths])
    return images


def files_below(folder: Path, *, ignored: Path | None = None, on_error: OnError | None = None) -> Iterator[Path]:
    """List all files in a folder and its subfolders, folder by folder, each sorted; links are followed.

    Folders of runs and of sorted images are passed over with a warning, unless `folder` itself is one.

    Args:
        ignored: a folder to leave out.
        on_error: takes the error of a folder that cannot be read or leads back to one above it; the files of the others
            are still listed. By default, the error is raised.

    Raises:
        InputError: see `on_error`.
    """
    return _files_below(folder, os.path.realpath(ignored) if ignored else "", on_error or raise_error, ())


def _files_below(folder: Path, ignored: str, on_error: OnError, parents: tuple[str, ...]) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if real == ignored:
        return
    if parents and is_run_folder(folder):
        _warn_of_runs(folder)
        return
    if parents and is_sorted_folder(folder):
        _warn_of_sorted(folder)
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


def raise_error(error: InputError) -> None:
    """Raise the error: what is done with errors unless they are collected."""
    raise error


def _warn_of_runs(folder: str | Path) -> None:
    warnings.warn(f"{folder}: holds runs rather than images of a class; passed over", stacklevel=1)


def _warn_of_sorted(folder: str | Path) -> None:
    warnings.warn(
        f"{folder}: holds images that gopro predict sorted, whose classes nobody has checked; passed over. If you have "
        f"checked them, remove {os.path.join(folder, MARK)}",
        stacklevel=1,
    )


def _images_below(root: Path, folder: str, on_error: OnError | None) -> list[str]:
    """List the paths below `root` of the images in one of its folders."""
    paths: list[str] = []
    for path in files_below(root / folder, on_error=on_error):
        if is_image(path):
            paths.append(path.relative_to(root).as_posix())
        elif not is_side_file(path):
            endings = " ".join(SUFFIXES)
            (on_error or raise_error)(
                InputError(f"{path}: not an image by its name ({endings}); convert, move or remove it")
            )
    return sorted(paths)


def _check_heif(root: Path, paths: list[str]) -> None:
    heif = [path for path in paths if path.lower().endswith(HEIF_SUFFIXES)]
    if heif and not reads_heif():
        raise InputError(f"{root}: {len(heif)} HEIC images ({first_few(heif)}) need pillow-heif: {INSTALL_HEIF}")


def _visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            visible = [e for e in entries if not e.name.startswith(".") and e.name.lower() not in _IGNORED]
    except OSError as error:
        raise InputError(f"{folder}: the folder cannot be read ({error.strerror})") from error
    return sorted(visible, key=lambda entry: entry.name)
