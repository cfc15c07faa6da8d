"""The images that settings are chosen by: neither test images nor images that a run is given."""

from __future__ import annotations

from dataclasses import dataclass, replace

from gopro.data.dataset import Dataset, Sample
from gopro.data.few_shot import Shots, draw_per_class
from gopro.data.images.restyle import Restyled, Style
from gopro.errors import InputError

IMAGES = 8
"""Held-out images per class, at most."""


@dataclass(frozen=True)
class HeldOut:
    """Training and validation images that a run on the base classes is not given, in one style.

    A run is given its few-shot draw of training images and, as some methods choose by them, of validation images. They
    are left out for every method, so that all are compared on the same images.

    Attributes:
        shots, seed: of the run.
    """

    shots: Shots
    seed: int
    style: Style

    def of(self, dataset: Dataset) -> Dataset:
        """Return the data set with up to `IMAGES` held-out images per class as its test images, and no others.

        Raises:
            InputError: the run is given all images of the base classes.
        """
        given = dataset.half("base").few_shot(self.shots, self.seed)
        names = {sample.image.name for sample in (*given.train, *given.val)}
        rest = tuple(sample for sample in (*dataset.train, *dataset.val) if sample.image.name not in names)
        drawn = draw_per_class(replace(dataset, val=rest), "val", IMAGES, self.seed)
        held_out = replace(dataset, train=(), val=(), test=tuple(map(self._restyle, drawn)))
        if not held_out.half("base").test:
            raise InputError(
                f"{dataset.name}: training on {self.shots} images per class leaves none to choose settings by, as test "
                "images are not used for it: give fewer --shots, or a data set with more training images"
            )
        return held_out

    def _restyle(self, sample: Sample) -> Sample:
        return sample if self.style == "original" else replace(sample, image=Restyled(sample.image, self.style))
