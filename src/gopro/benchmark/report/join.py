"""Results of several folders in one report, such as those of the jobs of a SLURM array."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gopro.errors import InputError
from gopro.runs.made_with import difference
from gopro.runs.results import KEY, ResultRow, Results

Key = tuple[Any, ...]


def key_of(row: ResultRow) -> Key:
    """Return the values of a row's `RunKey`."""
    return tuple(row[name] for name in KEY)


def join_results(folders: Sequence[Path]) -> tuple[list[ResultRow], dict[Key, Path]]:
    """Read the results of several folders, and tell which folder each key's row comes from.

    An evaluation that several folders have is taken from the first of them; zero-shot CLIP, for example, has no seed
    and is run by every job of an array.

    Raises:
        InputError: a folder has no results; folders have results of one method with different settings, or on different
            test images, which nobody may average or compare.
    """
    rows: list[ResultRow] = []
    folder_of: dict[Key, Path] = {}
    first: dict[Key, ResultRow] = {}  # by all of the key but the seed
    for folder in folders:
        path = folder / "results.jsonl"
        if not path.is_file():
            raise InputError(f"{folder} has no results.jsonl: give the --output folder of gopro benchmark")
        for row in Results(path).rows:
            key = key_of(row)
            setting = tuple(row[name] for name in KEY if name != "seed")
            other = first.setdefault(setting, row)
            kept = folder_of.setdefault(key, folder) == folder
            _check(row, folder, other, folder_of[key_of(other)])
            if kept:
                rows.append(row)
    return rows, folder_of


def _check(row: ResultRow, folder: Path, other: ResultRow, other_folder: Path) -> None:
    """Raise InputError if a row and one of another folder differ in more than the seed."""
    if folder == other_folder:
        return
    name = f"{row['method']} on {row['data']}, {row['classes']} classes"
    before, now = other.get("made_with"), row.get("made_with")
    if isinstance(before, Mapping) and isinstance(now, Mapping) and (changed := difference(before, now)) is not None:
        raise InputError(f"{name}, {changed}, in {other_folder} and {folder}: report on them apart")
    if other.get("test_images") != row.get("test_images"):
        raise InputError(f"{name}, was tested on other images in {folder} than in {other_folder}: report on them apart")


def common_folder(folders: Sequence[Path]) -> Path:
    """Return the folder for a report on several folders: `report`, beside or above them.

    Example:
        >>> common_folder([Path("runs/array/1"), Path("runs/array/2")]).as_posix()
        'runs/array/report'
    """
    if len(folders) == 1:
        return folders[0]
    absolute = Path(os.path.commonpath([folder.resolve() for folder in folders]))
    parent = absolute.parent if absolute in {folder.resolve() for folder in folders} else absolute
    return Path(os.path.relpath(parent)) / "report"
