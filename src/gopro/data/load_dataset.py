"""A data set by name: a benchmark of the catalog, an embedded emoji set, or a folder of the user's own images."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from gopro.data.catalog import CATALOG
from gopro.data.dataset import Dataset
from gopro.data.emoji import SETS, emoji_dataset
from gopro.data.folder import folder_dataset
from gopro.errors import InputError


def load_dataset(name: str, root: Path | None = None) -> Dataset:
    """Load a data set by name.

    Args:
        name: an embedded set (`emoji-animals`, or `emoji-animals:STYLE`), a benchmark of the catalog (`caltech101`),
            or the path of a folder of class folders, as it is or below `root`. A benchmark's name always means the
            benchmark; write `./caltech101` for a folder of that name.
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
    if name in CATALOG:
        if root is None:
            raise InputError(f"{name}: give --root FOLDER, the folder that contains {CATALOG[name].folder}/")
        return CATALOG[name].load(root)
    if folder := find_folder(name, root):
        return folder_dataset(folder)
    close = difflib.get_close_matches(name, (*SETS, *CATALOG), n=1)
    hint = f"did you mean {close[0]}?" if close else "give the path of a folder, or a name that gopro data list shows"
    raise InputError(f"{name}: no such data set or folder; {hint}")


def find_folder(name: str, root: Path | None = None) -> Path | None:
    """Find the user's folder that `load_dataset` would load; None if the name means something else or nothing."""
    if not name or name.startswith("emoji-") or name in CATALOG:
        return None
    path = Path(os.path.expanduser(name))
    candidates = [path] if root is None else [path, root.expanduser() / path]
    return next((folder for folder in candidates if folder.is_dir()), None)
