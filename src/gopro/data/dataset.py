"""What a data set is: labelled images in three splits, and the class halves and few-shot draws the field uses."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

from PIL import Image

from gopro.data.transforms import CROP
from gopro.errors import InputError

ClassHalf = Literal["all", "base", "new"]
SplitName = Literal["train", "val", "test"]


class ImageSource(Protocol):
    """Something that can be opened as an 8-bit RGB image."""

    @property
    def name(self) -> str:
        """What identifies the image to a person: its path, or how it was made."""
        ...

    def open(self) -> Image.Image:
        """The image, mode RGB. Raises InputError naming it if it cannot be read."""
        ...

    def digest(self) -> str:
        """What its content is known by, whatever it is called: 32 hexadecimal digits. Cheap beside opening it."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image; `label` indexes the data set's `classnames`."""

    image: ImageSource
    label: int


@dataclass(frozen=True)
class Dataset:
    """Labelled images in three splits.

    Labels are 0 … len(classnames) - 1. `template` is the zero-shot prompt, with `{}` where the class name goes; `crop`
    the least share of an image's area that a random view of training shows.
    """

    name: str
    classnames: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    template: str = "a photo of a {}."
    crop: float = CROP

    def split(self, which: SplitName) -> tuple[Sample, ...]:
        """The samples of one split."""
        return {"train": self.train, "val": self.val, "test": self.test}[which]

    def half(self, which: ClassHalf) -> Dataset:
        """The data set restricted to all, base or new classes, relabelled from 0.

        The first ceil(n/2) labels are base, the rest new, as in CoCoOp's `subsample_classes`.
        """
        if which not in get_args(ClassHalf):
            raise InputError(f"classes {which!r}: choose one of {', '.join(get_args(ClassHalf))}")
        if which == "all":
            return self
        if len(self.classnames) < 2:
            raise InputError(f"{self.name} has one class only: it has no base and new halves")
        middle = (len(self.classnames) + 1) // 2
        kept = range(middle) if which == "base" else range(middle, len(self.classnames))

        def keep(samples: Sequence[Sample]) -> tuple[Sample, ...]:
            return tuple(Sample(s.image, s.label - kept.start) for s in samples if s.label in kept)

        return replace(
            self,
            classnames=self.classnames[kept.start : kept.stop],
            train=keep(self.train),
            val=keep(self.val),
            test=keep(self.test),
        )

    def few_shot(self, shots: int, seed: int) -> Dataset:
        """`shots` images a class drawn from train and up to min(shots, 4) from val; test stays whole.

        The draw of a class depends on the seed, the data set's and the class's name alone, so it is the same
        for any half, machine and order of calls.

        Raises:
            InputError: a class has fewer than `shots` training images, or the data set has none at all.
        """
        if not self.train:
            raise InputError(f"{self.name} has no training images: it is there to be tested on")
        if shots < 1:
            raise InputError(f"shots is {shots}: ask for at least 1 image a class")
        return replace(
            self,
            train=self._draw(self.train, shots, seed, "train", strict=True),
            val=self._draw(self.val, min(shots, 4), seed, "val", strict=False),
        )

    def _draw(
        self, samples: Sequence[Sample], count: int, seed: int, split: str, *, strict: bool
    ) -> tuple[Sample, ...]:
        by_class: list[list[Sample]] = [[] for _ in self.classnames]
        for sample in samples:
            by_class[sample.label].append(sample)
        drawn: list[Sample] = []
        for name, pool in zip(self.classnames, by_class, strict=True):
            if strict and len(pool) < count:
                raise InputError(
                    f"{self.name}: class {name!r} has {len(pool)} training images, fewer than {count} shots; "
                    f"use --shots {len(pool)} or fewer, or add images"
                )
            pool = sorted(pool, key=lambda sample: sample.image.name)
            rng = random.Random(f"{self.name}/{split}/{name}/{seed}")
            drawn += rng.sample(pool, min(count, len(pool)))
        return tuple(drawn)
