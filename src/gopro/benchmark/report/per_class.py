"""Results per class: gains and losses over zero-shot CLIP, and which classes are confused."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gopro.benchmark.predictions import Predictions
from gopro.benchmark.report.experiment import Comparison, Experiment
from gopro.benchmark.report.palette import LIGHT, Mark
from gopro.benchmark.report.plots.render import Panel, Plots, tooltip

LISTED_CLASSES = 5
"""Classes listed with the largest gains, and with the largest losses."""
LISTED_CONFUSIONS = 12
MATRIX_CLASSES = 12
"""Classes up to which a test gets a confusion matrix."""
MATRICES = 2
"""Tests of a comparison that get confusion matrices."""
BIN = 10
"""Width of a bar of the histogram in percentage points. The middle one, -5 to 5, is around no change."""
STEADY = BIN / 2
"""Percentage points by which a class's accuracy must change to count as changed: half of the middle bar."""
BINS = 100 // BIN
"""Bars on either side of the middle one."""


@dataclass(frozen=True)
class ClassGain:
    """A class's accuracy under zero-shot CLIP and under a method, in percent, averaged over seeds.

    Attributes:
        test: data set and half of its classes, if the comparison has several.
        images: number of test images.
    """

    name: str
    test: str
    before: float
    after: float
    images: int

    @property
    def gain(self) -> float:
        """Difference in percentage points."""
        return self.after - self.before

    @property
    def bin(self) -> int:
        """Bar of the histogram: 0 if the accuracy changes by less than `STEADY`, 1 for 5 to 15 points more, ..."""
        size = int(round(abs(self.gain), 6) / BIN + 0.5)  # rounded, as a gain of 5 may be computed as 4.999…
        return size if self.gain > 0 else -size


@dataclass(frozen=True)
class Gains:
    """Gains of one method on all classes of a comparison."""

    method: str
    classes: Sequence[ClassGain]

    def share(self, sign: int) -> float:
        """Return the percentage of classes that gain (1) or lose (-1) at least `STEADY` points, or change less (0)."""
        return 100 * fmean(np.sign(entry.bin) == sign for entry in self.classes)

    def histogram(self) -> Float[np.ndarray, " bins"]:
        """Return the percentage of classes in each bar, from the largest loss to the largest gain."""
        bins = [BINS + entry.bin for entry in self.classes]
        return 100 * np.bincount(bins, minlength=2 * BINS + 1) / len(bins)

    @property
    def mean(self) -> float:
        """Mean gain over the classes, in percentage points."""
        return fmean(entry.gain for entry in self.classes)

    @property
    def largest_gains(self) -> list[ClassGain]:
        """Return the classes with the largest gains; among equal gains, classes with more images come first."""
        ranked = sorted(self.classes, key=lambda entry: (-entry.gain, -entry.images))
        return [entry for entry in ranked[:LISTED_CLASSES] if entry.gain > 0]

    @property
    def largest_losses(self) -> list[ClassGain]:
        """Return the classes with the largest losses; among equal losses, classes with more images come first."""
        ranked = sorted(self.classes, key=lambda entry: (entry.gain, -entry.images))
        return [entry for entry in ranked[:LISTED_CLASSES] if entry.gain < 0]


@dataclass(frozen=True)
class Confusion:
    """Images of class `truth` labelled `label`.

    Attributes:
        test: data set and half of its classes, if the comparison has several.
        images: test images of `truth`.
        counts: number of confused images by method, averaged over seeds.
    """

    truth: str
    label: str
    test: str
    images: int
    counts: Mapping[str, float]


@dataclass(frozen=True)
class ConfusionMatrix:
    """Percent of each class's images (rows) that get each label (columns), by method, averaged over seeds."""

    test: str
    names: Sequence[str]
    methods: Mapping[str, Float[np.ndarray, "classes classes"]]


@dataclass(frozen=True)
class PairedPredictions:
    """Predictions of several methods, one per seed, on the same test images."""

    test: str
    names: Sequence[str]
    labels: torch.Tensor
    methods: Mapping[str, Sequence[Predictions]]


def paired_predictions(experiment: Experiment, comparison: Comparison) -> list[PairedPredictions]:
    """Load the predictions of a comparison.

    Those on other images than the first method's are left out, with a note.
    """
    pairs = []
    several = len({row["data"] for row in comparison.rows}) > 1
    for (data, classes), methods in comparison.tests().items():
        by_method: dict[str, list[Predictions]] = {}
        first: Predictions | None = None
        for method in comparison.methods:
            for row in methods.get(method, []):
                if (predictions := experiment.predictions(row)) is None:
                    continue
                first = first or predictions
                if predictions.classnames == first.classnames and torch.equal(predictions.labels, first.labels):
                    by_method.setdefault(method, []).append(predictions)
                else:
                    experiment.notes.append(
                        f"{row['run']} was tested on other images of {data} than {comparison.methods[0]}, so it is "
                        "left out where single images are compared."
                    )
        if first is not None and len(by_method) > 1:
            test = ", ".join([*([data] if several else []), *([classes] if classes != "all" else [])])
            pairs.append(PairedPredictions(test, first.classnames, first.labels, by_method))
    return pairs


def gains(pairs: Sequence[PairedPredictions], zeroshot: str | None) -> list[Gains]:
    """Return each method's gains over zero-shot CLIP; empty if that was not run."""
    entries: dict[str, list[ClassGain]] = {}
    for pair in pairs:
        if zeroshot is None or zeroshot not in pair.methods:
            continue
        images = torch.bincount(pair.labels, minlength=len(pair.names)).tolist()
        before = _accuracy_per_class(pair.methods[zeroshot])
        for method, seeds in pair.methods.items():
            if method != zeroshot:
                after = _accuracy_per_class(seeds)
                entries.setdefault(method, []).extend(
                    ClassGain(name, pair.test, b, a, n)
                    for name, b, a, n in zip(pair.names, before, after, images, strict=True)
                    if b is not None and a is not None
                )
    return [Gains(method, classes) for method, classes in entries.items() if classes]


def _accuracy_per_class(seeds: Sequence[Predictions]) -> list[float | None]:
    """Return the accuracy of each class in percent, averaged over seeds; None for a class without images."""
    per_seed = [predictions.accuracy_per_class() for predictions in seeds]
    return [
        None if values[0] is None else fmean(value for value in values if value is not None)
        for values in zip(*per_seed, strict=True)
    ]


def gain_plots(comparison: Comparison, entries: Sequence[Gains], marks: Mapping[str, Mark]) -> Plots:
    """Plot a histogram of the gains of each method, all with the same axes."""
    shares = {entry.method: entry.histogram() for entry in entries}
    tallest = max(share.max() for share in shares.values())
    panels = [Panel(entry.method, _histogram(shares[entry.method], tallest), 1.35) for entry in entries]
    return Plots(f"gains-{comparison.slug}", f"Gains per class over zero-shot CLIP. {comparison.title}", panels, {})


def _histogram(shares: Float[np.ndarray, " bins"], tallest: float) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for place, share in enumerate(shares, start=-BINS):
            colour = "up-bar" if place > 0 else "down-bar" if place < 0 else "bar"
            if share:
                [bar] = axes.bar(BIN * place, share, width=0.9 * BIN, color=LIGHT[colour])
                low, high = BIN * place - STEADY, BIN * place + STEADY
                text = f"{low:+.0f} to {high:+.0f} points" if place else f"changes by less than {STEADY:.0f} points"
                bar.set_gid(tooltip(f"{text}: {share:.0f} % of classes".replace("-", "−")))
        axes.set_xlim(-100 - STEADY, 100 + STEADY)
        axes.set_ylim(0, 1.05 * tallest)
        axes.set_xticks([-100, -50, 0, 50, 100], ["−100", "−50", "0", "+50", "+100"])
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(False, axis="x")
        axes.set_xlabel("gain, percentage points")
        axes.set_ylabel("% of classes")

    return draw


def confusions(pairs: Sequence[PairedPredictions]) -> list[Confusion]:
    """Return the pairs of classes that some method confuses for the largest share of a class's images."""
    entries = []
    for pair in pairs:
        counts = {method: _confusion_counts(seeds) for method, seeds in pair.methods.items()}
        images = np.bincount(pair.labels.numpy(), minlength=len(pair.names))
        shares = np.max(list(counts.values()), axis=0) / np.maximum(images, 1)[:, None]
        np.fill_diagonal(shares, 0)
        for flat_index in np.argsort(-shares, axis=None, kind="stable")[:LISTED_CONFUSIONS]:
            truth, label = divmod(int(flat_index), len(pair.names))
            if shares[truth, label] > 0:
                own = {method: float(count[truth, label]) for method, count in counts.items()}
                entries.append(Confusion(pair.names[truth], pair.names[label], pair.test, int(images[truth]), own))
    entries.sort(key=lambda entry: -max(entry.counts.values()) / entry.images)
    return entries[:LISTED_CONFUSIONS]


def matrices(pairs: Sequence[PairedPredictions]) -> list[ConfusionMatrix]:
    """Return confusion matrices of the first tests that have few classes."""
    few = [pair for pair in pairs if len(pair.names) <= MATRIX_CLASSES]
    return [
        ConfusionMatrix(
            pair.test,
            pair.names,
            {method: _percent(_confusion_counts(seeds)) for method, seeds in pair.methods.items()},
        )
        for pair in few[:MATRICES]
    ]


def _confusion_counts(seeds: Sequence[Predictions]) -> Float[np.ndarray, "classes classes"]:
    """Count the images of each class (rows) that get each label (columns), averaged over seeds."""
    classes = len(seeds[0].classnames)
    counts = np.zeros((classes, classes))
    for predictions in seeds:
        np.add.at(counts, (predictions.labels.numpy(), predictions.top[:, 0].numpy()), 1)
    return counts / len(seeds)


def _percent(counts: Float[np.ndarray, "classes classes"]) -> Float[np.ndarray, "classes classes"]:
    return 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
