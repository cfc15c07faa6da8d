"""A data set: labelled images in three splits, with the class halves and few-shot draws of the field's protocols.

Imports neither torch nor PIL, so that configurations and the command line can use its names at no cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Protocol, get_args

from gopro.data.few_shot import Shots, draw_per_class
from gopro.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

ClassHalf = Literal["all", "base", "new"]
SplitName = Literal["train", "val", "test"]

CROP = 0.08
"""Smallest share of an image's area that a random view shows, as CoOp trains; recipes and data sets may differ."""


class ImageSource(Protocol):
    """Anything that opens as an 8-bit RGB image."""

    @property
    def name(self) -> str:
        """The image as messages call it: its path, or how it was made."""
        ...

    def open(self) -> Image.Image:
        """Return the image in mode RGB. Raises InputError, naming the image, if it cannot be read."""
        ...

    def digest(self) -> str:
        """Return 32 hexadecimal digits that depend on the content alone, not on the name. Cheaper than opening."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image; `label` indexes the data set's `classnames`.

    `domain` is the name of the data set that the image comes from, where several are joined (`gopro.data.mixed`).
    """

    image: ImageSource
    label: int
    domain: str = ""


@dataclass(frozen=True)
class Dataset:
    """Labelled images in three splits.

    Labels run from 0 to len(classnames) - 1. `template` is the zero-shot prompt, with `{}` where the class name goes;
    `crop` is the smallest share of an image's area that a random view shows in training; None: the recipe's.
    `unlabeled` are images without labels that a run learns from too; see `gopro.data.unlabeled`.

    Example:
        >>> from gopro import load_dataset
        >>> animals = load_dataset("emoji-animals")
        >>> few = animals.half("base").few_shot(shots=4, seed=1)
        >>> len(few.classnames), len(few.train), len(few.val)
        (79, 316, 316)
    """

    name: str
    classnames: tuple[str, ...]
    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    test: tuple[Sample, ...]
    template: str = "a photo of a {}."
    crop: float | None = None
    unlabeled: tuple[ImageSource, ...] = ()

    @property
    def domains(self) -> tuple[str, ...]:
        """The names of the data sets that are joined in this one, in order; none if it is a single one."""
        return tuple(dict.fromkeys(s.domain for s in (*self.train, *self.val, *self.test) if s.domain))

    def split(self, which: SplitName) -> tuple[Sample, ...]:
        """Return the samples of one split."""
        return {"train": self.train, "val": self.val, "test": self.test}[which]

    def half(self, which: ClassHalf) -> Dataset:
        """Restrict the data set to all, the base or the new classes, relabelled from 0.

        The first ceil(n / 2) labels are base and the rest new, as in CoCoOp's `subsample_classes`.

        Raises:
            InputError: no such half, or it would have only one class, which nothing can be mistaken for.
        """
        if which not in get_args(ClassHalf):
            raise InputError(f"classes {which!r}: choose one of {', '.join(get_args(ClassHalf))}")
        if which == "all":
            return self
        middle = (len(self.classnames) + 1) // 2
        labels = range(middle) if which == "base" else range(middle, len(self.classnames))
        if len(labels) < 2:
            raise InputError(
                f"{self.name} has {len(self.classnames)} classes, too few to divide: its {which} classes would be "
                f"{len(labels)}, and every accuracy 100 %; use all classes, or a data set with at least four"
            )

        def restrict(samples: Sequence[Sample]) -> tuple[Sample, ...]:
            return tuple(Sample(s.image, s.label - labels.start, s.domain) for s in samples if s.label in labels)

        return replace(
            self,
            classnames=self.classnames[labels.start : labels.stop],
            train=restrict(self.train),
            val=restrict(self.val),
            test=restrict(self.test),
        )

    def few_shot(self, shots: Shots, seed: int) -> Dataset:
        """Draw up to `shots` images per class from train and min(shots, 4) from val; test stays whole.

        A class with fewer images gives all that it has, as in CoOp. With `"all"`, train and val stay whole too. Where
        several data sets are joined, each gives that many images of each class.

        The draw of a class depends only on the seed and on the names of the data set and the class, so it is the same
        for either half, on every machine and in any order of calls.

        Raises:
            InputError: there are no training images, or `shots` is below 1.
        """
        if not self.train:
            raise InputError(f"{self.name} has no training images: it can only be tested on")
        if shots != "all" and shots < 1:
            raise InputError(f"shots is {shots}: give at least 1 image per class, or all")
        return replace(
            self,
            train=draw_per_class(self, "train", shots, seed),
            val=draw_per_class(self, "val", shots if shots == "all" else min(shots, 4), seed),
        )
