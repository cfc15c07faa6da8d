"""A data set by name: one in the package, a benchmark of the catalog, or a folder of the user's own images."""

from __future__ import annotations

import difflib
import os
import warnings
from dataclasses import replace
from pathlib import Path

from gopro.data.catalog import CATALOG, Benchmark
from gopro.data.dataset import Dataset
from gopro.data.emoji import SETS, emoji_dataset
from gopro.data.folder import folder_dataset, folder_target
from gopro.data.pacs import PACS
from gopro.data.photos import PHOTOS, photos_dataset
from gopro.errors import InputError

BENCHMARKS: dict[str, Benchmark] = {**CATALOG, **PACS}
"""The data sets below `root`, by name: those of CoOp's protocols, and the domains of PACS."""


def load_dataset(name: str, root: Path | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: a data set in the package (`photos`, `emoji-animals` or `emoji-animals:STYLE`), a benchmark
            (`caltech101`, `pacs:photo`), or the path of a folder of class folders, as it is or below `root`. The name
            of a data set always means that data set; write `./photos` for a folder of that name.
        root: the folder that contains the benchmark data sets, in CoOp's layout.

    Raises:
        InputError: nothing has that name, a benchmark is missing from `root`, or its files are invalid.

    Example:
        >>> import gopro
        >>> animals = gopro.load_dataset("emoji-animals:noto")
        >>> len(animals.classnames), animals.classnames[0]
        (158, 'T-Rex')
    """
    if name.startswith("emoji-"):
        return emoji_dataset(name)
    if name == PHOTOS:
        if (folder := _existing_folder(name, root)) is not None:
            warnings.warn(
                f"{name} means the photographs that come with gopro; for the folder {folder} write {_as_path(folder)}",
                stacklevel=2,
            )
        return photos_dataset()
    if name in BENCHMARKS:
        if root is None:
            raise InputError(f"{name}: give --root FOLDER, the folder that contains {BENCHMARKS[name].folder}/")
        return BENCHMARKS[name].load(root)
    if folder := find_folder(name, root):
        return folder_dataset(folder)
    close = difflib.get_close_matches(name, (PHOTOS, *SETS, *BENCHMARKS), n=1)
    hint = f"did you mean {close[0]}?" if close else "give the path of a folder, or a name that gopro data list shows"
    raise InputError(f"{name}: no such data set or folder; {hint}")


def load_target(name: str, root: Path | None = None) -> Dataset:
    """Load a data set for a model that is trained on another one: with test images only.

    They are the data set's own test images where it comes with a split, so that figures compare with those of others,
    and all images of a folder or a domain of PACS, whose split gopro would have to draw.

    The arguments and errors are those of `load_dataset`.
    """
    if name in BENCHMARKS and root is not None:
        return BENCHMARKS[name].load_target(root)
    if folder := find_folder(name, root):
        return folder_target(folder)
    return replace(load_dataset(name, root), train=(), val=())


def find_folder(name: str, root: Path | None = None) -> Path | None:
    """Find the user's folder that `load_dataset` would load; None if the name means something else or nothing."""
    return None if not name or is_packaged(name) or name in BENCHMARKS else _existing_folder(name, root)


def is_packaged(name: str) -> bool:
    """Tell whether a name means a data set that comes with this package, so that its images are nobody's secret."""
    return name == PHOTOS or name.startswith("emoji-")


def _existing_folder(name: str, root: Path | None) -> Path | None:
    path = Path(os.path.expanduser(name))
    candidates = [path] if root is None else [path, root.expanduser() / path]
    return next((folder for folder in candidates if folder.is_dir()), None)


def _as_path(folder: Path) -> str:
    """Write a path so that it cannot be taken for a name."""
    return folder.as_posix() if len(folder.parts) > 1 else f"./{folder}"
