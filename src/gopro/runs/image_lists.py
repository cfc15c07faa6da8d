"""Digests of lists of images, short enough for a row of results.jsonl."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from gopro.data.dataset import Dataset


def digest_training_images(digests: Sequence[str] | None) -> str | None:
    """Return one digest for the contents of the images that a run learns from, in their order; None if it has none."""
    return _digest(digests) if digests else None


def digest_test_list(part: Dataset) -> str:
    """Return a digest of the test images by class and file name, and of the classes without test images.

    Their folders do not count, so that data sets can be moved. The images are not opened.

    Args:
        part: the tested half of a data set.

    Example:
        >>> import gopro
        >>> animals = gopro.load_dataset("emoji-animals")
        >>> digest_test_list(animals.half("base")) == digest_test_list(animals.half("new"))
        False
    """
    images = [f"{part.classnames[sample.label]}/{sample.image.name.rpartition('/')[2]}" for sample in part.test]
    present = {sample.label for sample in part.test}
    return _digest(images + [f"{name}/" for label, name in enumerate(part.classnames) if label not in present])


def _digest(texts: Sequence[str]) -> str:
    return hashlib.blake2b("\n".join(texts).encode(), digest_size=16).hexdigest()
