"""Images held in memory between epochs, and images on disk that must not change between epochs."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from PIL import Image

from gopro.data.dataset import ImageSource, Sample
from gopro.data.images.transforms import Preprocess, shrink_for_crops
from gopro.errors import InputError

BLOCK = 32
"""Images decoded at a time, so that those beyond the budget take little memory."""


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image held in memory."""

    name: str
    image: Image.Image
    source: ImageSource | None = None
    """The image that it was decoded from, whose digest it keeps; None if it never was on disk."""

    def open(self) -> Image.Image:
        """Return a copy of the image, mode RGB."""
        return self.image.copy()

    def digest(self) -> str:
        """Hash the source's content, or the size and the pixels if there is no source."""
        if self.source is not None:
            return self.source.digest()
        return hashlib.blake2b(repr(self.image.size).encode() + self.image.tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class VerifiedImage:
    """An image on disk that is opened in every epoch and must not change in between."""

    image: ImageSource
    content: str
    """Its digest when it was first read."""

    @property
    def name(self) -> str:
        return self.image.name

    def open(self) -> Image.Image:
        """Return the image; see `open_verified`."""
        return open_verified(self.image, self.content)

    def digest(self) -> str:
        return self.content


def open_verified(image: ImageSource, digest: str) -> Image.Image:
    """Open an image whose content must still have this digest.

    Raises:
        InputError: the image cannot be read, or its content has changed.
    """
    pixels = image.open()
    # Hashed after opening: if the file was replaced before or while it was read, its digest differs by now.
    if image.digest() != digest:
        raise InputError(f"{image.name}: the image was replaced by another while it was in use; restore it")
    return pixels


def load_into_memory(samples: Sequence[Sample], preprocess: Preprocess, budget: int = 2**30) -> tuple[Sample, ...]:
    """Decode the first training images that fit into `budget` bytes; the others stay on disk as `VerifiedImage`.

    For random views only: images are stored no larger than these need, and the views are the same bits either way; see
    `gopro.data.images.transforms.shrink_for_crops`. Forked worker processes share the memory.

    Raises:
        InputError: an image cannot be read.
    """

    def open_for_crops(sample: Sample) -> Image.Image:
        return shrink_for_crops(sample.image.open(), preprocess.size)

    loaded: list[Sample] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # the decoders release Python's lock
        for first in range(0, len(samples), BLOCK):
            block = samples[first : first + BLOCK]
            opened = pool.map(open_for_crops, block) if budget > 0 else [None] * len(block)
            for sample, pixels in zip(block, opened, strict=True):
                if pixels is not None:
                    budget -= 4 * pixels.width * pixels.height  # PIL stores an RGB pixel in four bytes
                if pixels is not None and budget >= 0:
                    image = DecodedImage(sample.image.name, pixels, sample.image)
                else:
                    image = VerifiedImage(sample.image, sample.image.digest())
                loaded.append(replace(sample, image=image))
    return tuple(loaded)
