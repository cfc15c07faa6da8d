"""A small folder of images to try things on, as somebody's own would be: one folder a class."""

from __future__ import annotations

from pathlib import Path

from gopro.data.emoji import emoji_dataset
from gopro.errors import InputError

DATA = "emoji-animals:twemoji"
CLASSES = ("cat", "dog", "fox", "frog", "horse", "lion", "owl", "penguin", "rabbit", "turtle")
IMAGES = 20  # of each, of the 32 that the set has to train on


def write_example_folder(folder: str | Path) -> int:
    """Writes 20 scenes, as PNG files, of each of ten animals of the embedded benchmark; the same each time.

    Returns: how many images that are.

    Raises:
        InputError: there is something in the folder, or it cannot be written to.
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
