"""Data sets: the catalog's benchmarks, the embedded emoji sets, and folders of one's own images."""

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
    """A data set by name.

    Args:
        name: an embedded set (`emoji-animals`, or `emoji-animals:STYLE`), a benchmark of the catalog (`caltech101`),
            or the path of a folder of class-named folders, itself or below `root`. A benchmark's name always means
            the benchmark; write `./caltech101` for a folder of that name.
        root: the directory that holds the benchmarks' folders, in CoOp's layout.

    Raises:
        InputError: nothing goes by that name, a benchmark's root is missing, or what is there is faulty.
    """
    if name.startswith("emoji-"):
        return emoji_dataset(name)
    if name in CATALOG:
        if root is None:
            raise InputError(f"{name}: give --root, the directory that holds {CATALOG[name].folder}/")
        return CATALOG[name].load(root)
    if folder := find_folder(name, root):
        return folder_dataset(folder)
    known = (*SETS, *CATALOG)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}? " if close else ""
    raise InputError(f"{name}: no such data set or folder; {hint}known: {', '.join(known)}, or a folder's path")


def find_folder(name: str, root: Path | None = None) -> Path | None:
    """The folder of one's own that `load_dataset` takes a name for; None where it means something else or nothing."""
    if not name or name.startswith("emoji-") or name in CATALOG:
        return None
    own = Path(os.path.expanduser(name))
    return next((f for f in [own] + ([] if root is None else [root.expanduser() / own]) if f.is_dir()), None)
