"""A small folder of images to try gopro on, in the form of a user's own: one folder per class."""

from __future__ import annotations

from pathlib import Path

from gopro.data.emoji import emoji_dataset
from gopro.errors import InputError

DATA = "emoji-animals:twemoji"
CLASSES = ("cat", "dog", "fox", "frog", "horse", "lion", "owl", "penguin", "rabbit", "turtle")
IMAGES = 20
"""Images per class, of the 32 that the emoji set has for training."""


def write_example_folder(folder: str | Path) -> int:
    """Write 20 scenes of each of ten animals of the emoji benchmark as PNG files; the same ones each time.

    Returns:
        The number of images.

    Raises:
        InputError: the folder is not empty or cannot be written.

    Example:
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     write_example_folder(folder)
        200
    """
    folder = Path(folder).expanduser()
    dataset = emoji_dataset(DATA)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"{folder} is not empty: give the name of a new folder")
        for name in CLASSES:
            label = dataset.classnames.index(name)
            scenes = [sample.image for sample in dataset.train if sample.label == label][:IMAGES]
            (folder / name).mkdir(parents=True)
            for number, scene in enumerate(scenes, 1):
                scene.open().save(folder / name / f"{number:02}.png")
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}") from error
    return len(CLASSES) * IMAGES
