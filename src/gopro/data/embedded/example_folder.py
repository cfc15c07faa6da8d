"""A small folder of photographs to try gopro on, in the form of a user's own: one folder per class."""

from __future__ import annotations

import shutil
from pathlib import Path

from gopro.data.embedded.photos import FOLDER
from gopro.errors import InputError

CLASSES = (
    "butterfly",
    "crab",
    "dolphin",
    "elephant",
    "flamingo",
    "hedgehog",
    "kangaroo",
    "pigeon",
    "rhinoceros",
    "rooster",
)


def write_example_folder(folder: str | Path) -> int:
    """Write all packaged photographs of ten animals, 22 per animal, without the split that they have in the package.

    Returns:
        The number of images.

    Raises:
        InputError: the folder is not empty or cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_example_folder(folder)
        220
    """
    folder = Path(folder).expanduser()
    count = 0
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is not empty: give the name of a new folder")
        for name in CLASSES:
            (folder / name).mkdir(parents=True)
            images = sorted(FOLDER.glob(f"*/{name}/*.webp"), key=lambda path: path.name)
            for number, image in enumerate(images, 1):
                shutil.copyfile(image, folder / name / f"{number:02}.webp")
            count += len(images)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from error
    return count
