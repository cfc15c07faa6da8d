"""A few pictures to try the server on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from gopro.data import load_dataset
from gopro.data.dataset import Sample
from gopro.errors import InputError
from gopro.run import Run

COUNT = 12
SIDE = 512
"""Pixels that a sample's longer side has at most."""
EMBEDDED = "emoji-activities"


@dataclass(frozen=True)
class SamplePicture:
    """A picture as it is sent.

    Attributes:
        label: its class name.
        content: the file.
        kind: its media type.
    """

    label: str
    content: bytes
    kind: str


def sample_pictures(run: Run) -> list[SamplePicture]:
    """Test pictures of the run's own data, each of another class; of the embedded emoji where those cannot be had."""
    try:
        return _some(run.config.data, run)
    except InputError:
        return _some(EMBEDDED, None)


def _some(data: str, run: Run | None) -> list[SamplePicture]:
    """Raises InputError: there is no such data, it has no test pictures, or one cannot be read."""
    dataset = load_dataset(data) if run is None else load_dataset(data, run.config.root).half(run.config.classes)
    one_each = list({sample.label: sample for sample in reversed(dataset.test)}.values())
    if not one_each:
        raise InputError(f"{data} has no test pictures")
    one_each.sort(key=lambda sample: sample.label)
    count = min(COUNT, len(one_each))
    return [_sent(one_each[i * len(one_each) // count], dataset.classnames) for i in range(count)]


def _sent(sample: Sample, names: Sequence[str]) -> SamplePicture:
    image = sample.picture.open()
    small = max(image.size) <= 128  # drawings, that JPEG would blur
    image.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "PNG" if small else "JPEG", quality=90)
    return SamplePicture(names[sample.label], file.getvalue(), "image/png" if small else "image/jpeg")
