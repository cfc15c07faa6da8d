"""Folders of sorted images among folders of images: `gopro predict RUN . --sort-into sorted` makes one.

Their images are those of the other folders again, with labels that nobody has checked, so that they are no class.
"""

from __future__ import annotations

import os
from pathlib import Path

MARK = ".gopro-sorted"
"""Hidden file that tells such a folder from others."""
_MARK_TEXT = """\
gopro predict --sort-into copied or linked the images in this folder, and no person has checked their classes.
If this folder lies in a folder of images, gopro therefore passes over it. Remove this file to have it read.
"""


def create_sorted_folder(folder: Path) -> None:
    """Make a folder and mark it. A folder that holds something is left as it is: its images may be labelled.

    Raises:
        OSError: the folder cannot be made or written to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        (folder / MARK).write_text(_MARK_TEXT, encoding="utf-8")


def is_sorted_folder(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a folder is marked as one that images were sorted into."""
    return os.path.exists(os.path.join(folder, MARK))
