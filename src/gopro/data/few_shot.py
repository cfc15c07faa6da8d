"""The few-shot draw: up to K images per class, decided by the seed alone."""

from __future__ import annotations

import math
import random
import warnings
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from gopro.errors import InputError

if TYPE_CHECKING:
    from gopro.data.dataset import Dataset, Sample, SplitName


_NAMED = 10
"""Classes that a warning names."""

Shots = int | Literal["all"]
"""Training images per class, at most, or all."""


def shots_in_words(shots: Shots) -> str:
    """Say how many training images there are per class.

    Example:
        >>> shots_in_words(0), shots_in_words(1), shots_in_words(16), shots_in_words("all")
        ('no training images', '1 shot', '16 shots', 'all training images')
    """
    if shots == "all":
        return "all training images"
    return {0: "no training images", 1: "1 shot"}.get(shots, f"{shots} shots")


def by_number(shots: Shots) -> float:
    """Return the key to sort numbers of shots by; `all` comes last."""
    return math.inf if shots == "all" else shots


def distinct_shots(shots: Iterable[Shots]) -> list[Shots]:
    """Return the different numbers of shots in order, without 0; `all` comes last.

    Example:
        >>> distinct_shots(["all", 16, 0, 4, 16])
        [4, 16, 'all']
    """
    given = set(shots)
    numbers: list[Shots] = [*sorted(count for count in given - {0} if count != "all")]
    return [*numbers, "all"] if "all" in given else numbers


def draw_per_class(dataset: Dataset, split: SplitName, count: Shots, seed: int) -> tuple[Sample, ...]:
    """Draw up to `count` images of each class from a split, class by class; from each domain, if several are joined.

    Each class has a generator of its own, seeded by the names of the data set and the class, and draws from its images
    in the order of their names. So a class gets the same images whichever other classes there are (base, new or all),
    on every machine, and in any order of calls; and those of a domain are the same as when it is not joined.
    """
    by_class: list[dict[str, list[Sample]]] = [{} for _ in dataset.classnames]
    for sample in dataset.split(split):
        by_class[sample.label].setdefault(sample.domain, []).append(sample)
    drawn: list[Sample] = []
    for name, pools in zip(dataset.classnames, by_class, strict=True):
        for domain, pool in pools.items():
            pool = sorted(pool, key=lambda sample: sample.image.name)
            rng = random.Random(f"{domain or dataset.name}/{split}/{name}/{seed}")
            drawn += rng.sample(pool, len(pool) if count == "all" else min(count, len(pool)))
    return tuple(drawn)


def short_classes(dataset: Dataset, shots: Shots) -> dict[str, int]:
    """Map each class with fewer than `shots` training images to their number, the fewest first; none for all images.

    Where several data sets are joined, the classes of each count (`dog in sketch`), except those that it lacks.
    """
    if shots == "all":
        return {}
    if dataset.domains:
        pairs = Counter((sample.label, sample.domain) for sample in dataset.train)
        counts = {f"{dataset.classnames[label]} in {domain}": count for (label, domain), count in pairs.items()}
    else:
        by_label = Counter(sample.label for sample in dataset.train)
        counts = {name: by_label[label] for label, name in enumerate(dataset.classnames)}
    short = {name: count for name, count in counts.items() if count < shots}
    return dict(sorted(short.items(), key=lambda item: item[1]))


def check_shots(dataset: Dataset, shots: Shots) -> None:
    """Raise InputError if a class has fewer than `shots` training images."""
    for name, count in short_classes(dataset, shots).items():
        raise InputError(
            f"{dataset.name}: class {name!r} has {count} training images, fewer than {shots} shots; use --shots "
            f"{count or 'all'}{' or fewer' if count else ''}, or add images"
        )


def warn_of_short_classes(dataset: Dataset, shots: Shots) -> None:
    """Warn if classes have fewer than `shots` training images, with their names."""
    if short := short_classes(dataset, shots):
        listed = [f"{name} ({count})" for name, count in short.items()]
        more = f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else ""
        warnings.warn(
            f"{dataset.name}: {len(listed)} of {len(dataset.classnames) * (len(dataset.domains) or 1)} classes have "
            f"fewer than {shots} training images, and all of them are used: {', '.join(listed[:_NAMED])}{more}",
            stacklevel=1,  # from one line, so that Python shows it once for all methods of a benchmark
        )
