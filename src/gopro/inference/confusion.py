"""The confusion matrix, and precision, recall and F1 of each class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor


@dataclass(frozen=True)
class ClassMetrics:
    """Figures of one class, in percent.

    Attributes:
        name: of the class.
        images: number of its images.
        predicted: number of images that were labelled as it.
        precision: share of `predicted` that is right; None if no image was labelled as it.
        recall: share of `images` that is right, which is the accuracy of the class; None if it has no images.
        f1: harmonic mean of precision and recall, 2 · right / (images + predicted); None if both numbers are 0.
    """

    name: str
    images: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class Confusion:
    """`count` of the `images` of class `truth` were labelled `label`."""

    truth: str
    label: str
    count: int
    images: int


@dataclass(frozen=True)
class ConfusionMatrix:
    """Number of images of each class (rows) that were given each label (columns).

    Example:
        >>> labels, predicted = torch.tensor([0, 0, 0, 1, 2, 2]), torch.tensor([0, 0, 1, 1, 1, 2])
        >>> matrix = ConfusionMatrix.of(("ant", "bee", "fly"), labels, predicted)
        >>> matrix.counts.tolist()
        [[2, 1, 0], [0, 1, 0], [0, 1, 1]]
        >>> bee = matrix.classes()[1]
        >>> f"precision {bee.precision:.1f}, recall {bee.recall:.1f}, F1 {bee.f1:.1f}"
        'precision 33.3, recall 100.0, F1 50.0'
    """

    names: tuple[str, ...]
    counts: Int[Tensor, "classes classes"]

    @staticmethod
    def of(names: Sequence[str], labels: Int[Tensor, " n"], predicted: Int[Tensor, " n"]) -> ConfusionMatrix:
        """Count true and predicted labels."""
        classes = len(names)
        counts = torch.bincount(labels * classes + predicted, minlength=classes**2)
        return ConfusionMatrix(tuple(names), counts.view(classes, classes))

    def classes(self) -> list[ClassMetrics]:
        """Return the figures of each class, in the order of the names."""
        right, images, predicted = self.counts.diagonal(), self.counts.sum(dim=1), self.counts.sum(dim=0)
        return [
            ClassMetrics(name, n, m, _percent(r, m), _percent(r, n), _percent(2 * r, n + m))
            for name, r, n, m in zip(self.names, right.tolist(), images.tolist(), predicted.tolist(), strict=True)
        ]

    @property
    def macro_f1(self) -> float:
        """Mean F1 over the classes that have images or predictions, in percent."""
        values = [metrics.f1 for metrics in self.classes() if metrics.f1 is not None]
        return sum(values) / len(values)

    def largest(self, most: int) -> list[Confusion]:
        """Return the most frequent confusions, at most `most`, the largest number of images first.

        Among equal numbers, the class with fewer images comes first, and then the order of the names.
        """
        images = self.counts.sum(dim=1).tolist()
        off_diagonal = self.counts - self.counts.diagonal().diag()
        found = [
            Confusion(self.names[truth], self.names[label], int(self.counts[truth, label]), images[truth])
            for truth, label in off_diagonal.nonzero().tolist()
        ]
        return sorted(found, key=lambda confusion: (-confusion.count, confusion.images))[:most]


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None
