"""The confusion matrix and the figures of each class."""

import pytest
import torch

from gopro.inference.confusion import Confusion, ConfusionMatrix

NAMES = ("ant", "bee", "fly", "gnat", "moth")


def test_figures_are_those_of_their_definitions() -> None:
    generator = torch.Generator().manual_seed(1)
    labels, predicted = (torch.randint(0, 4, (60,), generator=generator) for _ in range(2))
    predicted[predicted == 2] = 1  # nothing is labelled fly, and there is no moth at all
    matrix = ConfusionMatrix.of(NAMES, labels, predicted)
    f1s = []
    for c, metrics in enumerate(matrix.classes()):
        true, said = (labels == c).tolist(), (predicted == c).tolist()
        both = sum(t and s for t, s in zip(true, said, strict=True))
        assert (metrics.name, metrics.images, metrics.predicted) == (NAMES[c], sum(true), sum(said))
        assert metrics.precision == (pytest.approx(100 * both / sum(said)) if sum(said) else None)
        assert metrics.recall == (pytest.approx(100 * both / sum(true)) if sum(true) else None)
        if metrics.precision and metrics.recall:
            f1 = 2 * metrics.precision * metrics.recall / (metrics.precision + metrics.recall)
            assert metrics.f1 == pytest.approx(f1)
        else:
            assert metrics.f1 == (0 if sum(true) else None)
        f1s += [] if metrics.f1 is None else [metrics.f1]
        for d in range(5):
            assert matrix.counts[c, d] == ((labels == c) & (predicted == d)).sum()
    assert len(f1s) == 4 and matrix.macro_f1 == pytest.approx(sum(f1s) / 4)


def test_the_most_frequent_confusions_come_first_and_of_equal_ones_the_smaller_class() -> None:
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2])
    predicted = torch.tensor([0, 0, 1, 0, 1, 2, 2, 3, 3])
    matrix = ConfusionMatrix.of(NAMES, labels, predicted)
    assert matrix.largest(2) == [Confusion("fly", "gnat", 2, 4), Confusion("bee", "ant", 1, 2)]
    assert len(matrix.largest(9)) == 3
