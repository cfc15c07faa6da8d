"""Sample images to try the server on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gopro.data.dataset import Dataset, ImageSource
from gopro.data.embedded.emoji import SETS, emoji_dataset
from gopro.data.embedded.photos import photos_dataset
from gopro.data.load_dataset import is_packaged, load_dataset
from gopro.errors import InputError
from gopro.runs.run import Run

COUNT = 12
MAX_SIDE = 512
"""Longer side of a sample in pixels; larger images are scaled down."""


@dataclass(frozen=True)
class SampleImage:
    """A sample image as it is sent.

    Attributes:
        label: class name.
        content: bytes of the file.
        media_type: such as `image/png`.
    """

    label: str
    content: bytes
    media_type: str


def sample_images(run: Run, data: str | None = None, root: Path | None = None) -> list[SampleImage]:
    """Return up to 12 test images, each of a different class.

    Everybody who reaches the server can see them. By default they are therefore images that come with this package, of
    classes that the run knows: of the run's own data set if that is packaged, else emoji for the backbone `emoji` and
    photographs for any other. If the run knows none of these classes, there are no samples. The run's other data are
    private, and its config may have been written by somebody else.

    Args:
        data: data set to take instead, with all its classes.
        root: folder that contains the benchmark data sets.

    Raises:
        InputError: the data set `data` does not exist or has no test images, or an image cannot be read.
    """
    if data is None:
        return _choose(_known(_packaged_data(run), run.method.classnames))
    if chosen := _choose(_named(load_dataset(data, root, levels=run.config.levels))):
        return chosen
    raise InputError(f"{data} has no test images to show as samples")


Named = tuple[str, ImageSource]
"""Class name and image."""


def _packaged_data(run: Run) -> list[Dataset]:
    """Return the data sets in this package that are like those that the run was trained on."""
    if is_packaged(run.config.data):
        with suppress(InputError):  # the config names a set or style that this version does not have
            return [load_dataset(run.config.data)]
    if run.method.backbone.name == "emoji":
        return [emoji_dataset(name) for name in SETS]
    return [photos_dataset()]


def _known(datasets: Sequence[Dataset], classnames: Sequence[str]) -> list[Named]:
    """Return the test images of these classes."""
    known = {name.casefold() for name in classnames}
    return [(name, image) for dataset in datasets for name, image in _named(dataset) if name.casefold() in known]


def _named(dataset: Dataset) -> list[Named]:
    return [(dataset.classnames[sample.label], sample.image) for sample in dataset.test]


def _choose(images: Sequence[Named]) -> list[SampleImage]:
    """Take the first image of each class, and of these classes up to 12 at equal distances."""
    first_of_class = list({name: (name, image) for name, image in reversed(images)}.values())[::-1]
    count = min(COUNT, len(first_of_class))
    return [_to_file(*first_of_class[i * len(first_of_class) // count]) for i in range(count)]


def _to_file(name: str, source: ImageSource) -> SampleImage:
    image = source.open()
    small = max(image.size) <= 128  # emoji, which JPEG would blur
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG" if small else "JPEG", quality=90)
    return SampleImage(name, file.getvalue(), "image/png" if small else "image/jpeg")
