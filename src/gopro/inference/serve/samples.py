"""A few images to try the server on."""

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
SIDE = 512
"""Pixels that a sample's longer side has at most."""
EMBEDDED = "emoji-activities"


@dataclass(frozen=True)
class SampleImage:
    """An image as it is sent.

    Attributes:
        label: its class name.
        content: the file.
        kind: its media type.
    """

    label: str
    content: bytes
    kind: str


def sample_images(run: Run, data: str | None = None, root: Path | None = None) -> list[SampleImage]:
    """Test images of a data set, each of another class.

    They are shown to whoever can reach the server. So what the run's config names is taken only where it comes with
    this package: other images are somebody's own, and a config may be a stranger's.

    Args:
        data: the data set; the run's own if it is embedded, else embedded emoji, if not given.
        root: directory that holds the benchmarks' folders.

    Raises:
        InputError: there is no such data, it has no test images, or one cannot be read.
    """
    if data is not None:
        return _some(load_dataset(data, root))
    if run.config.data.partition(":")[0] in SETS:
        try:
            return _some(load_dataset(run.config.data).half(run.config.classes))
        except InputError:  # a style of which there is none
            pass
    return _some(load_dataset(EMBEDDED))


def _some(dataset: Dataset) -> list[SampleImage]:
    one_each = list({sample.label: sample for sample in reversed(dataset.test)}.values())
    if not one_each:
        raise InputError(f"{dataset.name} has no test images to show as samples")
    one_each.sort(key=lambda sample: sample.label)
    count = min(COUNT, len(one_each))
    return [_sent(one_each[i * len(one_each) // count], dataset.classnames) for i in range(count)]


def _sent(sample: Sample, names: Sequence[str]) -> SampleImage:
    image = sample.image.open()
    small = max(image.size) <= 128  # drawings, that JPEG would blur
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG" if small else "JPEG", quality=90)
    return SampleImage(names[sample.label], file.getvalue(), "image/png" if small else "image/jpeg")
