"""Images that a data set has twice: in two parts, so that tests are on training images, or in two classes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from PIL import Image

NEAR_BITS = 4
"""Most of the 64 bits of two perceptual hashes that differ in copies of an image.

Measured on the 660 packaged photographs: in no two do fewer than 8 differ; of 200 that were halved or saved as JPEG
with quality 30, none differs by more than 4 from the original.
"""

_BANDS = NEAR_BITS + 1


class ListedImage(NamedTuple):
    """An image of a data set as it is compared with others."""

    name: str
    part: str
    classname: str
    digest: str
    phash: int | None = None


def perceptual_hash(image: Image.Image) -> int:
    """Hash what an image shows, in 64 bits: the signs of its lowest frequencies, by imagehash's `phash`."""
    from imagehash import phash  # takes its time to import

    factor = min(image.size) // 128  # hashed at 32 x 32
    return int(str(phash(image.reduce(factor) if factor > 1 else image)), 16)


def same_images(images: Iterable[ListedImage]) -> list[str]:
    """Name each image whose content appears earlier in another part or class, and where."""
    first_of: dict[str, ListedImage] = {}
    found: list[str] = []
    for image in images:
        first = first_of.setdefault(image.digest, image)
        if differs := _difference(first, image):
            found.append(f"{image.name}: the same image as {first.name} ({differs})")
    return found


def similar_images(images: Sequence[ListedImage]) -> list[str]:
    """Name each image that looks like an earlier one of another part or class; exact copies are left out."""
    found: dict[str, str] = {}
    for a, b in _close_pairs([image.phash for image in images]):
        first, image = images[a], images[b]
        if image.name not in found and first.digest != image.digest and (differs := _difference(first, image)):
            found[image.name] = f"{image.name}: looks like {first.name} ({differs})"
    return list(found.values())


def _difference(first: ListedImage, second: ListedImage) -> str | None:
    if first.name == second.name:
        return None
    said = [f"classes {first.classname} and {second.classname}"] if first.classname != second.classname else []
    said += [f"{first.part} and {second.part}"] if first.part != second.part else []
    return ", ".join(said) or None


def _close_pairs(hashes: Sequence[int | None]) -> Iterator[tuple[int, int]]:
    """Yield the pairs of indices, in order, whose hashes differ by at most `NEAR_BITS` bits.

    Of five bands of bits, two such hashes have one in common, so only those with a common band are compared.
    """
    by_band: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    width = -(-64 // _BANDS)
    for index, value in enumerate(hashes):
        if value is None:
            continue
        bands = [(band, value >> band * width & (1 << width) - 1) for band in range(_BANDS)]
        for other in sorted({other for band in bands for other in by_band[band]}):
            difference = value ^ (hashes[other] or 0)
            if difference.bit_count() <= NEAR_BITS:
                yield other, index
        for band in bands:
            by_band[band].append(index)
