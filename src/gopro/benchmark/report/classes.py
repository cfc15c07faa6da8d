"""Classes one by one: which gain and lose over zero-shot CLIP, and which are taken for one another."""

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
from gopro.benchmark.report.experiment import Experiment, Group
from gopro.benchmark.report.palette import LIGHT, Mark
from gopro.benchmark.report.plots import Panel, Plots, tip

LISTED = 5
"""Classes that gain most and that lose most."""
PAIRS = 12
"""Confusions listed."""
FEW = 12
"""Classes that a matrix may have."""
MATRICES = 2
"""Tests of a group that are shown as matrices."""
BINS = np.arange(-105, 106, 10)
"""Edges of the histogram, in percentage points; the middle one is no change to speak of."""


@dataclass(frozen=True)
class ClassGain:
    """A class's accuracy in percent under zero-shot CLIP and under a method, mean over seeds, and its test images."""

    name: str
    where: str
    before: float
    after: float
    images: int

    @property
    def gain(self) -> float:
        """In percentage points."""
        return self.after - self.before


@dataclass(frozen=True)
class Gains:
    """All classes of a group under one method. Shares are in percent of the classes."""

    method: str
    classes: Sequence[ClassGain]

    def share(self, sign: int) -> float:
        """Of classes that gain (1), lose (-1) or stay (0)."""
        return 100 * fmean(np.sign(entry.gain) == sign for entry in self.classes)

    @property
    def mean(self) -> float:
        """Mean gain over the classes, in percentage points."""
        return fmean(entry.gain for entry in self.classes)

    @property
    def most(self) -> list[ClassGain]:
        """The classes that gain most."""
        ranked = sorted(self.classes, key=lambda entry: (-entry.gain, -entry.images))
        return [entry for entry in ranked[:LISTED] if entry.gain > 0]

    @property
    def least(self) -> list[ClassGain]:
        """The classes that lose most."""
        ranked = sorted(self.classes, key=lambda entry: (entry.gain, -entry.images))
        return [entry for entry in ranked[:LISTED] if entry.gain < 0]


@dataclass(frozen=True)
class Confusion:
    """Images of `truth` called `called`: their number under each method, mean over seeds, of `images` in all."""

    truth: str
    called: str
    where: str
    images: int
    counts: Mapping[str, float]


@dataclass(frozen=True)
class Matrix:
    """Percent of each class's images (rows) called each class (columns) by each method, mean over seeds."""

    where: str
    names: Sequence[str]
    methods: Mapping[str, Float[np.ndarray, "classes classes"]]


@dataclass(frozen=True)
class Test:
    """What several methods say of the same images: one entry a seed."""

    where: str
    names: Sequence[str]
    labels: torch.Tensor
    methods: Mapping[str, Sequence[Predictions]]


def tests(experiment: Experiment, group: Group) -> list[Test]:
    """The group's tests whose predictions are there; those of other images than the first method's are left out."""
    found = []
    several = len({row["data"] for row in group.rows}) > 1
    for (data, classes), methods in group.tests().items():
        said: dict[str, list[Predictions]] = {}
        first: Predictions | None = None
        for method in group.methods:
            for row in methods.get(method, []):
                if (own := experiment.predictions(row)) is None:
                    continue
                first = first or own
                if own.classnames == first.classnames and torch.equal(own.labels, first.labels):
                    said.setdefault(method, []).append(own)
                else:
                    experiment.notes.append(
                        f"{row['run']} was tested on other images of {data} than {group.methods[0]}: it is left out "
                        "where images are compared one by one."
                    )
        if first is not None and len(said) > 1:
            where = ", ".join([*([data] if several else []), *([classes] if classes != "all" else [])])
            found.append(Test(where, first.classnames, first.labels, said))
    return found


def gains(found: Sequence[Test], zeroshot: str | None) -> list[Gains]:
    """Each method's gains over zero-shot CLIP; none where that was not run."""
    entries: dict[str, list[ClassGain]] = {}
    for test in found:
        if zeroshot is None or zeroshot not in test.methods:
            continue
        images = torch.bincount(test.labels, minlength=len(test.names)).tolist()
        before = _by_class(test.methods[zeroshot])
        for method, seeds in test.methods.items():
            if method != zeroshot:
                after = _by_class(seeds)
                entries.setdefault(method, []).extend(
                    ClassGain(name, test.where, b, a, n)
                    for name, b, a, n in zip(test.names, before, after, images, strict=True)
                    if b is not None and a is not None
                )
    return [Gains(method, classes) for method, classes in entries.items() if classes]


def _by_class(seeds: Sequence[Predictions]) -> list[float | None]:
    each = [own.accuracy_by_class() for own in seeds]
    return [
        None if values[0] is None else fmean(v for v in values if v is not None) for values in zip(*each, strict=True)
    ]


def gain_plots(group: Group, found: Sequence[Gains], marks: Mapping[str, Mark]) -> Plots:
    """A histogram a method of its gains, all on one axis."""
    counts = {entry.method: np.histogram([c.gain for c in entry.classes], BINS)[0] for entry in found}
    shares = {method: 100 * count / count.sum() for method, count in counts.items()}
    tallest = max(share.max() for share in shares.values())
    panels = [Panel(entry.method, _histogram(shares[entry.method], tallest), 1.35) for entry in found]
    return Plots(f"gains-{group.slug}", f"Gains of classes over zero-shot CLIP. {group.title}", panels, {})


def _histogram(shares: Sequence[float], tallest: float) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for share, low in zip(shares, BINS, strict=False):
            colour = "bar" if low == -5 else "up-bar" if low > 0 else "down-bar"
            if share:
                [bar] = axes.bar(low + 5, share, width=9, color=LIGHT[colour])
                bar.set_gid(tip(f"{low:+d} to {low + 10:+d} points: {share:.1f} % of classes"))
        axes.set_xlim(-105, 105)
        axes.set_ylim(0, 1.05 * tallest)
        axes.set_xticks([-100, -50, 0, 50, 100], ["−100", "−50", "0", "+50", "+100"])
        axes.yaxis.set_major_locator(MaxNLocator(3))
        axes.grid(False, axis="x")
        axes.set_xlabel("gain, percentage points")
        axes.set_ylabel("% of classes")

    return draw


def confusions(found: Sequence[Test]) -> list[Confusion]:
    """The pairs that one of the methods mixes up for the largest share of a class's images."""
    listed = []
    for test in found:
        counts = {method: _counts(seeds) for method, seeds in test.methods.items()}
        images = np.bincount(test.labels.numpy(), minlength=len(test.names))
        shares = np.max(list(counts.values()), axis=0) / np.maximum(images, 1)[:, None]
        np.fill_diagonal(shares, 0)
        for pair in np.argsort(-shares, axis=None, kind="stable")[:PAIRS]:
            truth, called = divmod(int(pair), len(test.names))
            if shares[truth, called] > 0:
                own = {method: float(count[truth, called]) for method, count in counts.items()}
                listed.append(Confusion(test.names[truth], test.names[called], test.where, int(images[truth]), own))
    return sorted(listed, key=lambda entry: -max(entry.counts.values()) / entry.images)[:PAIRS]


def matrices(found: Sequence[Test]) -> list[Matrix]:
    """Of the first tests that have few classes."""
    few = [test for test in found if len(test.names) <= FEW]
    return [
        Matrix(test.where, test.names, {method: _percent(_counts(seeds)) for method, seeds in test.methods.items()})
        for test in few[:MATRICES]
    ]


def _counts(seeds: Sequence[Predictions]) -> Float[np.ndarray, "classes classes"]:
    """Images of each class called each class, mean over seeds."""
    classes = len(seeds[0].classnames)
    counts = np.zeros((classes, classes))
    for own in seeds:
        np.add.at(counts, (own.labels.numpy(), own.top[:, 0].numpy()), 1)
    return counts / len(seeds)


def _percent(counts: Float[np.ndarray, "classes classes"]) -> Float[np.ndarray, "classes classes"]:
    return 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
