"""Gains and confusions per class, worked out by hand."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from gopro.benchmark.predictions import Predictions
from gopro.benchmark.report import per_class


def predicted(labels: Sequence[int], classes: Sequence[int]) -> Predictions:
    top = torch.tensor(classes)[:, None]
    return Predictions("pets", "all", ("ant", "bee", "cat", "dog"), torch.tensor(labels), top, torch.ones(len(top), 1))


def test_gains_and_confusions_by_hand() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2]  # no image of a dog
    methods = {
        "zeroshot": [predicted(labels, [0, 1, 1, 1, 1, 1, 0])],
        "coop": [predicted(labels, [0, 0, 0, 1, 0, 1, 0]), predicted(labels, [0, 0, 0, 0, 0, 1, 0])],
    }
    test = per_class.PairedPredictions("pets", ("ant", "bee", "cat", "dog"), torch.tensor(labels), methods)
    [gained] = per_class.gains([test], "zeroshot")
    # Ants: 25 % to the mean of 75 % and 100 %; bees: 100 % to 50 %; the cat is never right.
    assert [(entry.name, entry.gain, entry.images) for entry in gained.classes] == [
        ("ant", 62.5, 4),
        ("bee", -50, 2),
        ("cat", 0, 1),
    ]
    assert gained.mean == pytest.approx(12.5 / 3)
    assert [gained.share(sign) for sign in (1, 0, -1)] == pytest.approx([100 / 3] * 3)
    assert [entry.name for entry in gained.largest_gains] == ["ant"]
    assert [entry.name for entry in gained.largest_losses] == ["bee"]
    assert per_class.gains([test], None) == []
    confused = [(entry.truth, entry.label, entry.images, entry.counts) for entry in per_class.confusions([test])]
    assert confused == [
        ("cat", "ant", 1, {"zeroshot": 1, "coop": 1}),
        ("ant", "bee", 4, {"zeroshot": 3, "coop": 0.5}),
        ("bee", "ant", 2, {"zeroshot": 0, "coop": 1}),
    ]
    [matrix] = per_class.matrices([test])
    assert matrix.methods["coop"].tolist() == [[87.5, 12.5, 0, 0], [50, 50, 0, 0], [100, 0, 0, 0], [0, 0, 0, 0]]
