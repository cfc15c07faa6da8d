"""The photographs in the package: 30 classes of Caltech101. See docs/datasets.md."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from gopro.data.dataset import Dataset, Sample
from gopro.data.folders.class_folders import folder_dataset
from gopro.data.images.image_file import ImageFile

PHOTOS = "photos"
FOLDER = Path(__file__).parents[2] / "assets" / PHOTOS
"""Folders train, val and test, and the attribution."""


def photos_dataset() -> Dataset:
    """Load the packaged photographs; each of the 30 classes has 8 train, 4 val and 10 test images.

    Images are called `photos/test/crab/image_0002.webp` wherever the package is installed.
    """
    dataset = folder_dataset(FOLDER)
    train, val, test = (tuple(_named(samples)) for samples in (dataset.train, dataset.val, dataset.test))
    return replace(dataset, train=train, val=val, test=test)


def _named(samples: Iterable[Sample]) -> Iterable[Sample]:
    for sample in samples:
        path = Path(sample.image.name)
        yield Sample(ImageFile(path, f"{PHOTOS}/{path.relative_to(FOLDER).as_posix()}"), sample.label)
