"""Levels: the values that images with more than 8 bits per sample show as black and white.

Cameras of 10, 12 or 14 bits write their values into 16-bit files as they are. Taken as 16 bits, a 12-bit image is
nearly black: its largest value, 4095, is 16 of 255.

Imports neither NumPy nor PIL, as the settings of runs use it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from gopro.errors import InputError

if TYPE_CHECKING:
    import numpy as np

    from gopro.data.dataset import Dataset, ImageSource, Sample

Levels = tuple[float, float]
"""The values that become black (0) and white (255); those between are scaled, those outside clipped."""

SIXTEEN_BITS: Levels = (0, 65535)


@runtime_checkable
class FromFile(Protocol):
    """An `ImageSource` whose file may have more than 8 bits per sample."""

    def at_levels(self, levels: Levels) -> ImageSource:
        """Return the same image, opened at these levels."""
        ...


def check_levels(levels: Levels | None) -> None:
    """Raise InputError unless white is above black."""
    if levels is not None and not levels[0] < levels[1]:
        raise InputError(f"levels are {levels[0]:g} {levels[1]:g}: give black below white, such as 0 4095 for 12 bits")


def suggest_levels(low: float, high: float) -> Levels | None:
    """Return levels for images with samples from `low` to `high`, None if they do well as 16-bit images.

    Example:
        >>> suggest_levels(3, 4012), suggest_levels(28000, 31500), suggest_levels(0, 60000)
        ((0, 4095), (28000, 31500), None)
    """
    if low >= 0 and high <= SIXTEEN_BITS[1] and high - low > SIXTEEN_BITS[1] / 2:
        return None
    if 0 <= low < high / 8 and 255 < high <= SIXTEEN_BITS[1]:  # a camera of 9 to 15 bits
        return 0, 2 ** int(high).bit_length() - 1
    return (low, high) if low < high else None


def to_eight_bits(samples: np.ndarray, levels: Levels) -> np.ndarray:
    """Scale samples of any number type to uint8, rounded to nearest and clipped at the levels.

    Example:
        >>> import numpy as np
        >>> to_eight_bits(np.array([0, 2048, 4095, 65535]), (0, 4095)).tolist()
        [0, 128, 255, 255]
    """
    black, white = levels
    scaled = (samples.astype("float64") - black) * (255 / (white - black))
    return scaled.round().clip(0, 255).astype("uint8")


def with_levels(dataset: Dataset, levels: Levels | None) -> Dataset:
    """Return the data set with its images on disk opened at these levels; None leaves them as they are.

    Raises:
        InputError: white is not above black.
    """
    if levels is None:
        return dataset
    check_levels(levels)

    def at_levels(samples: tuple[Sample, ...]) -> tuple[Sample, ...]:
        return tuple(
            replace(sample, image=sample.image.at_levels(levels)) if isinstance(sample.image, FromFile) else sample
            for sample in samples
        )

    return replace(dataset, train=at_levels(dataset.train), val=at_levels(dataset.val), test=at_levels(dataset.test))
