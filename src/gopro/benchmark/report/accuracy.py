"""Plots of accuracy: dots for a table, curves over shots, accuracy against cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter, MaxNLocator

from gopro.benchmark.report.experiment import Group
from gopro.benchmark.report.mean_std import MeanStd
from gopro.benchmark.report.palette import LIGHT, Mark
from gopro.benchmark.report.plots import Panel, Plots, stem, tip
from gopro.benchmark.report.summary import headlines
from gopro.benchmark.report.table import AVERAGE, Line, Table
from gopro.benchmark.report.tables import tables
from gopro.runs.results import ResultRow

LANE, GAP = 0.085, 0.1
"""Height of one method's dot, and between two columns' dots, in inches."""

Draw = Callable[[Axes], None]


def average_or(title: str) -> str:
    """A block's or column's title for people."""
    return "Average" if title == AVERAGE else title


def dots(table: Table, marks: Mapping[str, Mark]) -> Plots:
    """A panel a block, the average first: a lane a column, in it a dot with its error bar for each method."""
    panels, methods = [], {}
    for block in sorted(table.blocks, key=lambda block: block.title != AVERAGE):
        lines = [line for line in block.lines if not line.published]
        methods |= {line.label: marks[line.label] for line in lines}
        height = 0.5 + len(table.columns) * (LANE * len(lines) + GAP)
        panels.append(Panel(average_or(block.title) or table.title, _lanes(table.columns, lines, marks), height))
    return Plots(stem(f"{table.protocol}-{table.setting}"), f"{table.title}, {table.setting}", panels, methods)


def _lanes(columns: Sequence[str], lines: Sequence[Line], marks: Mapping[str, Mark]) -> Draw:
    def draw(axes: Axes) -> None:
        step = LANE / (LANE * len(lines) + GAP)
        for place, line in enumerate(lines):
            mark = marks[line.label]
            for lane, (column, cell) in enumerate(zip(columns, line.cells, strict=True)):
                mean_std = cell.measured
                if mean_std.count:
                    y = lane + (place - (len(lines) - 1) / 2) * step
                    if mean_std.std is not None:
                        ends = [mean_std.mean - mean_std.std, mean_std.mean + mean_std.std]
                        axes.plot(ends, [y, y], color=mark.hex, linewidth=1.1)
                    [dot] = axes.plot([mean_std.mean], [y], color=mark.hex, marker=mark.marker, markersize=4)
                    dot.set_gid(tip(f"{line.label}, {average_or(column)}: {mean_std}"))
        axes.set_yticks(range(len(columns)), [average_or(column) for column in columns])
        axes.set_ylim(len(columns) - 0.5, -0.5)
        for edge in range(1, len(columns)):
            axes.axhline(edge - 0.5, color=LIGHT["line"], linewidth=0.7)
        axes.grid(False, axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("accuracy, %")

    return draw


def shot_curves(rows: Iterable[ResultRow], marks: Mapping[str, Mark]) -> list[Plots]:
    """Accuracy over shots in the few-shot protocol, for each backbone: the average over data sets, then each of them.

    The average is taken seed by seed, over seeds that every data set has.
    """
    found = []
    kept = [row for row in rows if row["protocol"] == "few-shot"]
    for backbone in dict.fromkeys(row["backbone"] for row in kept if row["shots"]):
        seeds: dict[tuple[str, str, int], dict[int, float]] = {}
        for row in kept:
            if row["backbone"] == backbone:
                key = row["data"], row["method"], row["shots"]
                seeds.setdefault(key, {})[row["seed"]] = row["accuracy"]
        datasets = list(dict.fromkeys(data for data, *_ in seeds))
        if len(datasets) > 1:
            for method, shots in dict.fromkeys((method, shots) for _, method, shots in seeds):
                parts = [seeds.get((data, method, shots), {}) for data in datasets]
                common = [seed for seed in parts[0] if all(seed in part for part in parts)]
                if common:
                    seeds[AVERAGE, method, shots] = {seed: fmean(part[seed] for part in parts) for seed in common}
        curves: dict[str, dict[str, dict[int, MeanStd]]] = {}
        for (data, method, shots), values in sorted(seeds.items(), key=lambda item: item[0][2]):
            curves.setdefault(data, {}).setdefault(method, {})[shots] = MeanStd.of(list(values.values()))
        order = [data for data in (AVERAGE, *datasets) if data in curves]
        panels = [Panel(average_or(data), _curves(curves[data], marks)) for data in order]
        methods = {method: mark for method, mark in marks.items() if any(key[1] == method for key in seeds)}
        found.append(Plots(stem(f"few-shot-{backbone}"), f"Accuracy over shots, {backbone}", panels, methods))
    return found


def _curves(curves: Mapping[str, Mapping[int, MeanStd]], marks: Mapping[str, Mark]) -> Draw:
    ticks = sorted({shots for curve in curves.values() for shots in curve if shots})

    def draw(axes: Axes) -> None:
        for method, mark in marks.items():
            curve = dict(curves.get(method, {}))
            if level := curve.pop(0, None):
                line = axes.axhline(level.mean, color=mark.hex, linestyle=(0, (4, 2)), linewidth=1.3)
                line.set_gid(tip(f"{method}: {level}"))
            if curve:
                for shots, mean_std in curve.items():
                    if mean_std.std is not None:
                        ends = [mean_std.mean - mean_std.std, mean_std.mean + mean_std.std]
                        axes.plot([shots, shots], ends, color=mark.hex, linewidth=1)
                means = [mean_std.mean for mean_std in curve.values()]
                [line] = axes.plot(list(curve), means, color=mark.hex, marker=mark.marker)
                line.set_gid(tip(f"{method}: " + ", ".join(f"{s} shots {mean_std}" for s, mean_std in curve.items())))
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(shots) for shots in ticks])
        axes.set_xticks([], minor=True)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel("shots")
        axes.set_ylabel("accuracy, %")

    return draw


@dataclass(frozen=True)
class Cost:
    """What a method took, means over its runs; None where it was not written down.

    Attributes:
        accuracy: as the table's headline has it.
        seconds: of training, one run.
        memory: MiB at the most.
        parameters: how many numbers are learned.
    """

    method: str
    accuracy: MeanStd
    seconds: float | None
    memory: float | None
    parameters: float | None


def costs(group: Group) -> tuple[str, list[Cost]]:
    """What stands for accuracy, in words, and the methods' costs, best first; none where no run says what it took."""
    found = [headline for table in tables(group.rows) for headline in headlines(table)]
    if not found:
        return "", []
    runs = list({row.get("run"): row for row in group.rows}.values())
    listed = []
    for method, mean_std in found[-1].methods:
        own = [row for row in runs if row["method"] == method]
        seconds, memory, parameters = (_mean(own, key) for key in ("train_seconds", "peak_memory_mib", "parameters"))
        listed.append(Cost(method, mean_std, seconds, memory, parameters))
    if not any(cost.seconds for cost in listed):
        return "", []
    return found[-1].figure, listed


def _mean(rows: Sequence[ResultRow], key: str) -> float | None:
    values = [row[key] for row in rows if row.get(key) is not None]
    return fmean(values) if values else None


def cost_plots(group: Group, figure: str, found: Sequence[Cost], marks: Mapping[str, Mark]) -> Plots:
    """Accuracy against each cost, on a logarithmic axis where the costs differ tenfold."""
    labels = {"seconds": "seconds of training a run", "memory": "peak memory, MiB", "parameters": "learned parameters"}
    panels = []
    for name, label in labels.items():
        known = [(cost, float(value)) for cost in found if (value := getattr(cost, name)) is not None]
        if any(value > 0 for _, value in known):
            panels.append(Panel(label[0].upper() + label[1:], _scatter(known, label, figure, marks)))
    methods = {cost.method: marks[cost.method] for cost in found}
    return Plots(f"cost-{group.slug}", f"Accuracy against cost. {group.title}", panels, methods)


def _scatter(known: Sequence[tuple[Cost, float]], label: str, figure: str, marks: Mapping[str, Mark]) -> Draw:
    positive = [value for _, value in known if value > 0]
    first, last = math.floor(math.log10(min(positive))), math.ceil(math.log10(max(positive)))

    def draw(axes: Axes) -> None:
        for cost, value in known:
            mark, mean_std = marks[cost.method], cost.accuracy
            if mean_std.std is not None:
                ends = [mean_std.mean - mean_std.std, mean_std.mean + mean_std.std]
                axes.plot([value, value], ends, color=mark.hex, linewidth=1.1)
            [dot] = axes.plot([value], [mean_std.mean], color=mark.hex, marker=mark.marker, markersize=6)
            dot.set_gid(tip(f"{cost.method}: {mean_std}, {value:,.4g} {label}"))
        if max(positive) > 10 * min(positive):
            nothing = [0.0] if len(positive) < len(known) else []
            # 0, of what learns nothing, lies a decade below the least of the others.
            axes.set_xscale("symlog", linthresh=10**first) if nothing else axes.set_xscale("log")
            ticks = [*nothing, *(10.0**power for power in range(first, last + 1, 1 + (last - first) // 5))]
            axes.set_xticks(ticks, [EngFormatter(sep="")(tick) for tick in ticks])
            axes.set_xticks([], minor=True)
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.margins(0.1)
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.set_xlabel(label)
        axes.set_ylabel("accuracy, %")

    return draw
