"""Plots of accuracy: a dot plot per table, curves by shots, accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from gopro.benchmark.report.experiment import Comparison
from gopro.benchmark.report.palette import LIGHT, Mark
from gopro.benchmark.report.plots.render import Panel, Plots, stem, tooltip
from gopro.benchmark.report.summary import headlines
from gopro.benchmark.report.tables.mean_std import MeanStd
from gopro.benchmark.report.tables.protocol_tables import tables
from gopro.benchmark.report.tables.table import AVERAGE, Line, Table
from gopro.data.few_shot import Shots, by_number, distinct_shots, shots_in_words
from gopro.errors import InputError
from gopro.methods.recipe import Recipe, Training
from gopro.methods.registry import METHODS
from gopro.runs.results import ResultRow

LANE, GAP = 0.085, 0.1
"""Height of one method's dot, and of the gap between two columns, in inches."""

Draw = Callable[[Axes], None]


def display_title(title: str) -> str:
    """Return the title of a block or column as the page shows it."""
    return "Average" if title == AVERAGE else title


def dot_plots(table: Table, marks: Mapping[str, Mark]) -> Plots:
    """Plot each block as a panel, the average first: one dot with its error bar per column and method."""
    panels, methods = [], {}
    for block in sorted(table.blocks, key=lambda block: block.title != AVERAGE):
        lines = [line for line in block.lines if not line.published]
        methods |= {line.label: marks[line.label] for line in lines}
        height = 0.5 + len(table.columns) * (LANE * len(lines) + GAP)
        panels.append(Panel(display_title(block.title) or table.title, _lanes(table.columns, lines, marks), height))
    return Plots(stem(f"{table.protocol}-{table.setting}"), f"{table.title}, {table.setting}", panels, methods)


def _lanes(columns: Sequence[str], lines: Sequence[Line], marks: Mapping[str, Mark]) -> Draw:
    def draw(axes: Axes) -> None:
        step = LANE / (LANE * len(lines) + GAP)
        for place, line in enumerate(lines):
            mark = marks[line.label]
            for lane, (column, cell) in enumerate(zip(columns, line.cells, strict=True)):
                accuracy = cell.measured
                if accuracy.count:
                    y = lane + (place - (len(lines) - 1) / 2) * step
                    if accuracy.std is not None:
                        axes.plot(_ends(accuracy), [y, y], color=mark.hex, linewidth=1.1)
                    [dot] = axes.plot([accuracy.mean], [y], **mark.line, markersize=4)
                    dot.set_gid(tooltip(f"{line.label}, {display_title(column)}: {accuracy}"))
        axes.set_yticks(range(len(columns)), [display_title(column) for column in columns])
        axes.set_ylim(len(columns) - 0.5, -0.5)
        for edge in range(1, len(columns)):
            axes.axhline(edge - 0.5, color=LIGHT["line"], linewidth=0.7)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("accuracy, %")

    return draw


def _ends(accuracy: MeanStd) -> list[float]:
    """Return the two ends of an error bar of one standard deviation."""
    return [accuracy.mean - (accuracy.std or 0), accuracy.mean + (accuracy.std or 0)]


def shot_curves(rows: Iterable[ResultRow], marks: Mapping[str, Mark]) -> list[Plots]:
    """Plot accuracy by shots in the few-shot protocol, per backbone: the average over data sets, then each data set.

    The average is taken for each seed that every data set has, then over seeds.
    """
    plots = []
    few_shot = [row for row in rows if row["protocol"] == "few-shot"]
    for backbone in dict.fromkeys(row["backbone"] for row in few_shot if row["shots"]):
        seeds: dict[tuple[str, str, Shots], dict[int, float]] = {}
        for row in few_shot:
            if row["backbone"] == backbone:
                key = row["data"], row["method"], row["shots"]
                seeds.setdefault(key, {})[row["seed"]] = row["accuracy"]
        datasets = list(dict.fromkeys(data for data, *_ in seeds))
        if len(datasets) > 1:
            lines: list[tuple[str, Shots]] = [(method, shots) for _, method, shots in seeds]
            for method, shots in dict.fromkeys(lines):
                parts = [seeds.get((data, method, shots), {}) for data in datasets]
                common = [seed for seed in parts[0] if all(seed in part for part in parts)]
                if common:
                    seeds[AVERAGE, method, shots] = {seed: fmean(part[seed] for part in parts) for seed in common}
        curves: dict[str, dict[str, dict[Shots, MeanStd]]] = {}
        for (data, method, shots), values in sorted(seeds.items(), key=lambda item: by_number(item[0][2])):
            curves.setdefault(data, {}).setdefault(method, {})[shots] = MeanStd.of(list(values.values()))
        order = [data for data in (AVERAGE, *datasets) if data in curves]
        panels = [Panel(display_title(data), _curves(curves[data], marks)) for data in order]
        methods = {method: mark for method, mark in marks.items() if any(key[1] == method for key in seeds)}
        plots.append(Plots(stem(f"few-shot-{backbone}"), f"Accuracy by shots, {backbone}", panels, methods))
    return plots


def _curves(curves: Mapping[str, Mapping[Shots, MeanStd]], marks: Mapping[str, Mark]) -> Draw:
    ticks = distinct_shots(shots for curve in curves.values() for shots in curve)
    places: dict[Shots, int] = {shots: shots for shots in ticks if shots != "all"}
    if "all" in ticks:  # classes differ in size, so it has no place on the axis: one doubling after the last number
        places["all"] = 2 * max(places.values(), default=1)

    def draw(axes: Axes) -> None:
        for method, mark in marks.items():
            curve = dict(curves.get(method, {}))
            if level := curve.pop(0, None):
                line = axes.axhline(level.mean, color=mark.hex, linestyle=(0, (4, 2)), linewidth=1.3)
                line.set_gid(tooltip(f"{method}: {level}"))
            if curve:
                for shots, accuracy in curve.items():
                    if accuracy.std is not None:
                        axes.plot([places[shots]] * 2, _ends(accuracy), color=mark.hex, linewidth=1)
                means = [accuracy.mean for accuracy in curve.values()]
                [line] = axes.plot([places[shots] for shots in curve], means, **mark.line)
                points = ", ".join(f"{accuracy} with {shots_in_words(shots)}" for shots, accuracy in curve.items())
                line.set_gid(tooltip(f"{method}: {points}"))
        axes.set_xscale("log", base=2)
        axes.set_xticks([places[shots] for shots in ticks], [str(shots) for shots in ticks])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("training images per class")
        axes.set_ylabel("accuracy, %")

    return draw


@dataclass(frozen=True)
class MethodCost:
    """Cost of a method, averaged over its runs; None if no run recorded it.

    Attributes:
        accuracy: the figure that the table's headline ranks.
        seconds: training time of one run.
        memory: peak memory in MiB.
        parameters: number of learned parameters.
        training: what its steps were, such as `5 epochs, batches of 4, SGD at 0.0035`; None without steps, or if its
            runs differ in it.
    """

    method: str
    accuracy: MeanStd
    seconds: float | None
    memory: float | None
    parameters: float | None
    training: str | None


def method_costs(comparison: Comparison) -> tuple[str, list[MethodCost]]:
    """Return the title of the accuracy column and the cost of each method, best method first; empty without costs."""
    ranked = [headline for table in tables(comparison.rows) for headline in headlines(table)]
    if not ranked:
        return "", []
    runs = list({row.get("run"): row for row in comparison.rows}.values())
    listed = []
    for method, accuracy in ranked[-1].methods:
        own = [row for row in runs if row["method"] == method]
        seconds, memory, parameters = (_mean(own, key) for key in ("train_seconds", "peak_memory_mib", "parameters"))
        listed.append(MethodCost(method, accuracy, seconds, memory, parameters, _training(method, own)))
    if not any(cost.seconds for cost in listed):
        return "", []
    return ranked[-1].title, listed


def _training(method: str, rows: Sequence[ResultRow]) -> str | None:
    kind = METHODS.get(method.partition("[")[0])
    if kind is None or Training.STEPS not in kind.trained_by:
        return None
    made = [row["made_with"] for row in rows if isinstance(row.get("made_with"), dict)]  # missing in old results
    try:
        recipes = {Recipe(**each["recipe"]).in_words() for each in made if isinstance(each.get("recipe"), dict)}
    except (InputError, TypeError):  # a version with other fields wrote it
        return None
    return recipes.pop() if len(recipes) == 1 else None


def _mean(rows: Sequence[ResultRow], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return fmean(values) if values else None


def cost_plots(comparison: Comparison, costs: Sequence[MethodCost], marks: Mapping[str, Mark]) -> Plots:
    """Plot accuracy against each cost, on a logarithmic axis if costs differ more than tenfold."""
    labels = {
        "seconds": "training time, s",
        "memory": "peak memory, MiB",
        "parameters": "learned parameters",
    }
    panels = []
    for name, label in labels.items():
        known = [(cost, float(value)) for cost in costs if (value := getattr(cost, name)) is not None]
        if any(value > 0 for _, value in known):
            panels.append(Panel(label[0].upper() + label[1:], _scatter(known, label, marks)))
    methods = {cost.method: marks[cost.method] for cost in costs}
    return Plots(f"cost-{comparison.slug}", f"Accuracy against cost. {comparison.title}", panels, methods)


def _scatter(known: Sequence[tuple[MethodCost, float]], label: str, marks: Mapping[str, Mark]) -> Draw:
    positive = [value for _, value in known if value > 0]
    first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))

    def draw(axes: Axes) -> None:
        for cost, value in known:
            mark, accuracy = marks[cost.method], cost.accuracy
            if accuracy.std is not None:
                axes.plot([value, value], _ends(accuracy), color=mark.hex, linewidth=1.1)
            [dot] = axes.plot([value], [accuracy.mean], **mark.line, markersize=6)
            dot.set_gid(tooltip(f"{cost.method}: accuracy {accuracy} %, {label}: {value:,.4g}"))
        if max(positive) > 10 * min(positive):
            zero = [0.0] if len(positive) < len(known) else []
            # A cost of 0, of a method that is not trained, is drawn a decade below the smallest other cost.
            axes.set_xscale("symlog", linthresh=10**first) if zero else axes.set_xscale("log")
            ticks = [*zero, *(10.0**power for power in range(first, last + 1, 1 + (last - first) // 5))]
            axes.set_xticks(ticks, [EngFormatter(sep="")(tick) if tick >= 1 else f"{tick:g}" for tick in ticks])
            axes.set_xticks([], minor=True)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.margins(0.1)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy, %")

    return draw
