"""The few-shot draw: K images per class, decided by the seed alone."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from gopro.errors import InputError

if TYPE_CHECKING:
    from gopro.data.dataset import Dataset, Sample, SplitName


def draw_per_class(dataset: Dataset, split: SplitName, count: int, seed: int, *, strict: bool) -> tuple[Sample, ...]:
    """Draw `count` images of each class from a split, class by class.

    Each class has a generator of its own, seeded by the names of the data set and the class, and draws from its images
    in the order of their names. So a class gets the same images whichever other classes there are (base, new or all),
    on every machine, and in any order of calls.

    Args:
        strict: refuse a class with fewer images; otherwise take all that it has.

    Raises:
        InputError: `strict`, and a class has fewer than `count` images.
    """
    by_class: list[list[Sample]] = [[] for _ in dataset.classnames]
    for sample in dataset.split(split):
        by_class[sample.label].append(sample)
    drawn: list[Sample] = []
    for name, pool in zip(dataset.classnames, by_class, strict=True):
        if strict and len(pool) < count:
            raise InputError(
                f"{dataset.name}: class {name!r} has {len(pool)} training images, fewer than {count} shots; "
                f"use --shots {len(pool)} or fewer, or add images"
            )
        pool = sorted(pool, key=lambda sample: sample.image.name)
        rng = random.Random(f"{dataset.name}/{split}/{name}/{seed}")
        drawn += rng.sample(pool, min(count, len(pool)))
    return tuple(drawn)
