"""Gains and confusions per class, worked out by hand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from gopro.benchmark.predictions import Predictions
from gopro.benchmark.report import per_class
from gopro.benchmark.report.page import write_report
from gopro.benchmark.report.plots import render
from gopro.data.load_dataset import load_dataset
from tests.support.fake_sweep import FakeSweep, own_images
from tests.support.report_page import collapsed


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


def gains_of(*changes: float) -> per_class.Gains:
    return per_class.Gains("coop", [per_class.ClassGain("c", "", 50, 50 + change, 10) for change in changes])


def test_the_sentence_and_the_histogram_count_the_same_classes() -> None:
    """Both take a change of less than 5 points as none; the sentence took 0 alone, the bar -5 to 5."""
    entry = gains_of(0, 2, -4.99, 5, -5, 14.9, 50, -50, 15, 4.99)
    bars = entry.histogram()
    middle = len(bars) // 2
    assert bars.sum() == pytest.approx(100)
    assert bars[middle] == entry.share(0) == 40
    assert bars[:middle].sum() == pytest.approx(entry.share(-1)) == 20
    assert bars[middle + 1 :].sum() == pytest.approx(entry.share(1)) == 40
    assert (bars[middle + 1], bars[middle + 2], bars[middle + 5], bars[0]) == (20, 10, 10, 0)
    # As a person computes them, whatever floating-point numbers make of 30 % - 25 % and 35 % - 30 %.
    exact = [100 * k / 20 for k in range(21)]
    shifted = [per_class.ClassGain("c", "", a, b, 20) for a, b in pairwise(exact)]
    assert {entry.bin for entry in shifted} == {1}
    assert gains_of(100, -100).histogram()[[0, -1]].tolist() == [50, 50]


def test_the_report_says_what_its_histogram_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "save", lambda plots, folder: None)
    path = own_images(tmp_path / "own")
    sweep, own = FakeSweep(tmp_path / "results"), load_dataset(path)
    sweep.runs("few-shot", own.name, [(own, path, "all")], 2)
    html = write_report(sweep.write()).read_text(encoding="utf-8")
    text = collapsed(re.sub(r"<svg.*?</svg>", "", html, flags=re.DOTALL))
    said = re.findall(r"Of 6 classes, (\d+) % lose 5 points or more, (\d+) % change less and (\d+) % gain", text)
    drawn = re.findall(r"changes by less than 5 points: (\d+) % of classes", html)
    assert len(said) == 2 and [stay for _, stay, _ in said if stay != "0"] == drawn
