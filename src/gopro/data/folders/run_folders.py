"""Folders of runs among folders of images: `gopro train --data . --output runs/mine` makes one.

They are no classes. This package knows nothing of runs, so it knows their folders by the names of files in them.
"""

from __future__ import annotations

import os

_BENCHMARK = "results.jsonl"
_RUN = "config.json"
_BESIDE = ("learned.safetensors", "resume.safetensors", "training_images.json", "log.csv", "cost.json")
_TRACKERS = frozenset({"runs", "wandb", "mlruns", "lightning_logs"})
"""Folders that this and other tools make in the working folder."""

Folder = str | os.PathLike[str]


def is_run_folder(folder: Folder) -> bool:
    """Tell whether a folder is that of a run or of a benchmark."""

    def holds(name: str) -> bool:
        return os.path.exists(os.path.join(folder, name))

    return holds(_BENCHMARK) or (holds(_RUN) and any(map(holds, _BESIDE)))


def holds_runs(folder: Folder, suffixes: tuple[str, ...]) -> bool:
    """Tell whether a folder holds runs and no image outside of them.

    A folder called `runs`, `wandb`, `mlruns` or `lightning_logs` does if no image lies directly in it; other tools
    write images deeper. Reading stops at the first image, so this is cheap for a class folder.

    Args:
        suffixes: endings, in lower case, of the names of images.
    """
    found, waiting = False, [os.fspath(folder)]
    while waiting:
        here = waiting.pop()
        if is_run_folder(here):
            found = True
            continue
        folders: list[str] = []
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.name.lower().endswith(suffixes):
                        return False
        except OSError:  # reported when its images are listed
            continue
        if os.path.basename(here) in _TRACKERS:
            found = True
        else:
            waiting += folders
    return found
