"""Sample images to try the server on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gopro.data.dataset import Dataset, Sample
from gopro.data.emoji import SETS
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.runs.run import Run

COUNT = 12
MAX_SIDE = 512
"""Longer side of a sample in pixels; larger images are scaled down."""
DEFAULT_DATA = "emoji-activities"


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
    """Return up to 12 test images of a data set, each of a different class.

    Everybody who reaches the server can see them. So the data set in the run's config is used only if it is embedded
    in this package: otherwise its images are private, and the config may have been written by somebody else.

    Args:
        data: data set; by default the run's own if it is embedded, else emoji-activities.
        root: folder that contains the benchmark data sets.

    Raises:
        InputError: the data set does not exist or has no test images, or an image cannot be read.
    """
    if data is not None:
        return _choose(load_dataset(data, root))
    if run.config.data.partition(":")[0] in SETS:
        try:
            return _choose(load_dataset(run.config.data).half(run.config.classes))
        except InputError:  # the config names a style that this version does not have
            pass
    return _choose(load_dataset(DEFAULT_DATA))


def _choose(dataset: Dataset) -> list[SampleImage]:
    first_of_class = list({sample.label: sample for sample in reversed(dataset.test)}.values())
    if not first_of_class:
        raise InputError(f"{dataset.name} has no test images to show as samples")
    first_of_class.sort(key=lambda sample: sample.label)
    count = min(COUNT, len(first_of_class))
    return [_to_file(first_of_class[i * len(first_of_class) // count], dataset.classnames) for i in range(count)]


def _to_file(sample: Sample, names: Sequence[str]) -> SampleImage:
    image = sample.image.open()
    small = max(image.size) <= 128  # emoji, which JPEG would blur
    image.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG" if small else "JPEG", quality=90)
    return SampleImage(names[sample.label], file.getvalue(), "image/png" if small else "image/jpeg")
