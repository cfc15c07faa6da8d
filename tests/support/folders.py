"""Folders of small images."""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

DOMAINS = ("photo/cat", "photo/dog", "photo/fox", "sketch/cat", "sketch/dog", "sketch/fox")
"""Two domains with the same three classes."""


def make_folders(root: Path, folders: Iterable[str], images: int = 4) -> Path:
    """Put some images, no two alike, into each of the folders below `root`, and return `root`."""
    for number, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        for i in range(images):
            Image.new("RGB", (8, 8), (i, number, 0)).save(root / folder / f"{i}.png")
    return root
