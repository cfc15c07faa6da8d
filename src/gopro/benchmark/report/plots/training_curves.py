"""Training curves: each loss term, and accuracy on validation images, by training step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from gopro.benchmark.report.experiment import Experiment
from gopro.benchmark.report.palette import Mark
from gopro.benchmark.report.plots.render import Panel, Plots, stem, tooltip
from gopro.benchmark.report.rows import TRANSFER
from gopro.data.few_shot import Shots, by_number, shots_in_words
from gopro.runs.config import TrainConfig
from gopro.runs.results import ResultRow

POINTS = 40
"""Points per curve at most; each is the mean of neighbouring steps."""
SHOWN_TRAININGS = 3
TOTAL, VALIDATION = "Total loss", "Validation accuracy, %"
_IMAGE_DISTANCE, _TEXT_DISTANCE = "Distance of image features from CLIP's", "Distance of text features from CLIP's"
TERM_TITLES = {
    "total": TOTAL,
    "ce": "Cross-entropy",
    "ce_views": "Cross-entropy of other views",
    "ce_representation": "Cross-entropy of representation tokens",
    "con": "Contrastive loss",
    "ssl": "Contrastive loss",
    "sem": "Consistency of prompts",
    "anchor_image": _IMAGE_DISTANCE,
    "image": _IMAGE_DISTANCE,
    "anchor": "Distance of features from CLIP's",
    "anchor_text": _TEXT_DISTANCE,
    "text": _TEXT_DISTANCE,
    "kg": _TEXT_DISTANCE,
    "logits": "Divergence of predictions from CLIP's",
    "val": VALIDATION,
}
"""Titles of the columns of log.csv, in the order of their panels. Methods name a term as their authors do; the terms
that mean the same share a panel."""
NOT_LOSSES = ("epoch", "step", "lr", "seconds")

Curve = tuple[np.ndarray, np.ndarray, np.ndarray | None, int]
"""Steps, mean and standard deviation over seeds (None for one seed), and number of seeds."""


@dataclass(frozen=True)
class Training:
    """Training data that several methods share: data set, half of its classes and number of shots."""

    source: str
    classes: str
    backbone: str
    shots: Shots

    @property
    def title(self) -> str:
        """Data set, classes, backbone and shots in prose."""
        part = "all classes" if self.classes == "all" else f"{self.classes} classes"
        return f"{self.source}, {part}, {self.backbone}, {shots_in_words(self.shots)}"


def training_plots(experiment: Experiment, marks: Mapping[str, Mark]) -> tuple[list[Plots], int]:
    """Plot the trainings that compare the most methods, of these the ones with the most shots.

    Each half of classes on each backbone gets its first plot before any gets a second.

    Returns:
        The plots, and the number of trainings that are not shown.
    """
    runs: dict[Training, dict[str, dict[str, None]]] = {}
    for row in experiment.rows:
        if row["shots"] and row.get("run"):
            runs.setdefault(_training(row), {}).setdefault(row["method"], {})[row["run"]] = None
    order = sorted(runs, key=lambda training: (-len(runs[training]), -by_number(training.shots)))
    counts: dict[tuple[str, str], int] = {}
    turns = {}
    for training in order:
        kind = training.classes, training.backbone
        turns[training] = counts[kind] = counts.get(kind, -1) + 1
    shown, tried = [], 0
    for training in sorted(order, key=turns.__getitem__):
        if len(shown) == SHOWN_TRAININGS:
            break
        tried += 1
        curves = {method: _curves(experiment, list(names)) for method, names in runs[training].items()}
        if plots := _plots(training, {method: own for method, own in curves.items() if own}, marks):
            shown.append(plots)
    return shown, len(order) - tried


def run_plots(config: TrainConfig, log: Sequence[dict[str, float]], marks: Mapping[str, Mark]) -> Plots | None:
    """Plot the training of one run."""
    training = Training(config.data, config.classes, str(config.backbone), config.shots)
    return _plots(training, {config.method: _mean_curves([log])}, marks)


def term_title(name: str) -> str:
    """Return the title of a column of log.csv; that of somebody's own method is its name in words."""
    return TERM_TITLES.get(name) or name.replace("_", " ").strip().capitalize()


def _training(row: ResultRow) -> Training:
    classes = "base" if row["protocol"] == "base-to-new" else "all"
    source = row["source"] if row["protocol"] in TRANSFER else row["data"]
    return Training(source, classes, row["backbone"], row["shots"])


def _curves(experiment: Experiment, runs: Sequence[str]) -> dict[str, Curve]:
    """Return the curve of each column of the logs by its title, over the seeds with as many steps as the first."""
    logs: list[list[dict[str, float]]] = []
    first = ""
    for run in runs:
        log = experiment.log(run)
        if log and logs and len(log) != len(logs[0]):
            experiment.notes.append(
                f"{run} has another number of steps than {first}, so it is left out of the training curves."
            )
        elif log:
            first = first or run
            logs.append(log)
    return _mean_curves(logs)


def _mean_curves(logs: Sequence[Sequence[dict[str, float]]]) -> dict[str, Curve]:
    """Return the curve of each column of logs of equal length, one per seed."""
    curves: dict[str, Curve] = {}
    for name in logs[0][0] | logs[0][-1] if logs else ():
        if name in NOT_LOSSES:
            continue
        values = [[(step["step"], step[name]) for step in log if name in step] for log in logs]
        values = [own for own in values if len(own) == len(values[0])]
        each = np.array(values)  # [seeds, steps, (step, value)]
        parts = np.array_split(each, min(POINTS, each.shape[1]), axis=1)
        points = np.stack([part.mean(axis=1) for part in parts], axis=1)
        std = points[:, :, 1].std(axis=0, ddof=1) if len(values) > 1 else None
        curves[term_title(name)] = points[0, :, 0], points[:, :, 1].mean(axis=0), std, len(values)
    return curves


def _plots(training: Training, curves: Mapping[str, Mapping[str, Curve]], marks: Mapping[str, Mark]) -> Plots | None:
    if not curves:
        return None
    known = list(dict.fromkeys(TERM_TITLES.values()))
    titles = dict.fromkeys(title for own in curves.values() for title in own)
    order = sorted(titles, key=lambda title: known.index(title) if title in known else known.index(VALIDATION) - 0.5)
    if all(TOTAL not in own or len(own.keys() - {VALIDATION}) == 2 for own in curves.values()):
        order.remove(TOTAL)  # each method has a single term, which is the total
    panels = [Panel(title, _lines(title, curves, marks)) for title in order]
    methods = {method: mark for method, mark in marks.items() if method in curves}
    return Plots(stem(f"training-{training.title}"), f"Training curves. {training.title}", panels, methods)


def _lines(title: str, curves: Mapping[str, Mapping[str, Curve]], marks: Mapping[str, Mark]) -> Callable[[Axes], None]:
    def draw(axes: Axes) -> None:
        for method, own in curves.items():
            if title not in own:
                continue
            steps, mean, std, seeds = own[title]
            colour = marks[method].hex
            if std is not None:
                axes.fill_between(steps, mean - std, mean + std, color=colour, alpha=0.18, linewidth=0)
            [line] = axes.plot(steps, mean, **marks[method].line, markevery=[-1])
            over = f", mean over {seeds} seeds" if seeds > 1 else ""
            line.set_gid(tooltip(f"{method}: {mean[0]:.4g} → {mean[-1]:.4g}{over}"))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("training step")

    return draw
