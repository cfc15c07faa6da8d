"""Tables of all protocols from the rows of results.jsonl: mean ± standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gopro.benchmark.report.bootstrap import differences
from gopro.benchmark.report.mean_std import MeanStd, harmonic_mean
from gopro.benchmark.report.published import SOURCE, published
from gopro.benchmark.report.rows import PROTOCOLS, TRANSFER, Score, read_scores
from gopro.benchmark.report.table import AVERAGE, Table
from gopro.benchmark.report.table_builder import TableBuilder

_Seeds = Mapping[int, tuple[float, ...]]
"""What each seed reached: one accuracy, or base and new."""


def tables(rows: Iterable[Mapping[str, Any]], against: str | None = None) -> list[Table]:
    """One table a protocol, backbone and number of shots; in few-shot one a backbone, whose columns are the shots.

    A method that learns from no images (0 shots) takes part in the tables of all shots, in front of the others.
    Averages over data sets are taken seed by seed and then mean_std over seeds; a seed that not every data set has is
    left out, and the notes say so. docs/protocols.md says what each protocol's averages are over. Figures that the
    paper prints for the same setting stand beside ours; its methods that were not run close each block.

    Args:
        rows: objects of results.jsonl, with all keys of `gopro.runs.results.KEY` and `accuracy` (percent).
        against: the method that the others are compared with (see `differences`), in the tables that it is in.

    Raises:
        InputError: a row lacks a key, holds what cannot be, contradicts its protocol, or occurs twice.
    """
    scores = read_scores(rows)
    made: list[tuple[Table, Sequence[Score]]] = []
    for protocol in PROTOCOLS:
        for backbone in dict.fromkeys(score.backbone for score in scores if score.protocol == protocol):
            own = [score for score in scores if (score.protocol, score.backbone) == (protocol, backbone)]
            if protocol == "few-shot":
                made.append((_few_shot(backbone, own), own))
                continue
            for shots in sorted({score.shots for score in own} - {0}) or [0]:
                part = _of_shots(own, shots)
                table = _transfer(part, shots) if protocol in TRANSFER else _base_to_new(part, shots)
                made.append((table, part))
    if against is None:
        return [table for table, _ in made]
    return [replace(table, differences=differences(part, _methods(part), against)) for table, part in made]


def _base_to_new(scores: Sequence[Score], shots: int) -> Table:
    halves: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for score in scores:
        halves.setdefault((score.data, score.method), {}).setdefault(score.seed, {})[score.classes] = score.accuracy
    datasets, methods, backbone = _unique(score.data for score in scores), _methods(scores), scores[0].backbone
    sheet = TableBuilder(methods, ("Base", "New", "HM"), published("base-to-new", backbone, shots, datasets))
    pairs: dict[tuple[str, str], _Seeds] = {}
    for data in datasets:
        sheet.figures[data] = {}
        for method in methods:
            seeds = halves.get((data, method), {})
            pairs[data, method] = {seed: (half["base"], half["new"]) for seed, half in seeds.items() if len(half) == 2}
            if seeds:
                sheet.figures[data][method] = _with_hm(list(pairs[data, method].values()))
            for seed, half in sorted(seeds.items()):
                if len(half) == 1:
                    lacks = "new" if "base" in half else "base"
                    sheet.notes.append(f"{data}, {method}: seed {seed} left out, its {lacks} half is missing")
    if len(datasets) > 1:
        sheet.figures[AVERAGE] = {}
        for method in methods:
            means, said = _average({data: pairs[data, method] for data in datasets})
            sheet.figures[AVERAGE][method] = _with_hm(means)
            sheet.notes += [f"{AVERAGE}, {method}: {text}" for text in said]
    lead = (
        "Trained on the base classes of a data set, tested on its base and on its new classes, each among themselves;"
    )
    lead += " HM is the harmonic mean of the two."
    return sheet.table("base-to-new", _setting(backbone, shots), lead)


def _with_hm(pairs: Sequence[tuple[float, ...]]) -> tuple[MeanStd, ...]:
    """Base, new and, seed by seed, their harmonic mean."""
    base, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    hm = harmonic_mean(np.array(base), np.array(new)).tolist()
    return MeanStd.of(base), MeanStd.of(new), MeanStd.of(hm)


def _transfer(scores: Sequence[Score], shots: int) -> Table:
    reached: dict[tuple[str, str, str], dict[int, tuple[float]]] = {}
    for score in scores:
        reached.setdefault((score.source, score.method, score.data), {})[score.seed] = (score.accuracy,)
    sources, methods = _unique(score.source for score in scores), _methods(scores)
    targets = {
        source: _unique(score.data for score in scores if score.source == source != score.data) for source in sources
    }
    columns = _unique([*sources, *(data for names in targets.values() for data in names)])
    if any(len(names) > 1 for names in targets.values()):
        columns.append(AVERAGE)
    protocol, backbone = scores[0].protocol, scores[0].backbone
    sheet = TableBuilder(methods, columns, published(protocol, backbone, shots, targets.get(SOURCE, ())))
    for source in sources:
        sheet.figures[source] = {}
        for method in methods:
            own = {data: reached.get((source, method, data), {}) for data in columns}
            if not any(own.values()):
                continue
            means, said = _average({data: own[data] for data in targets[source]})
            where = f"{source}, {method}" if len(sources) > 1 else method
            sheet.notes += [f"{where}: {text}" for text in said]
            figures = {data: _mean_std(list(seeds.values())) for data, seeds in own.items()} | {
                AVERAGE: _mean_std(means)
            }
            sheet.figures[source][method] = tuple(figures[column] for column in columns)
    others = "other data sets" if protocol == "cross-dataset" else "the same kinds of things in other domains"
    learned = sources[0] if len(sources) == 1 else "one data set, the source"
    lead = f"Trained on all classes of {learned}; tested on it and, without further training, on {others}."
    if AVERAGE in columns:
        lead += " The average is over the others alone."
    return sheet.table(protocol, _setting(backbone, shots), lead, {sources[0]: ""} if len(sources) == 1 else None)


def _few_shot(backbone: str, scores: Sequence[Score]) -> Table:
    reached: dict[tuple[str, str, int], dict[int, tuple[float]]] = {}
    for score in scores:
        reached.setdefault((score.data, score.method, score.shots), {})[score.seed] = (score.accuracy,)
    datasets, methods = _unique(score.data for score in scores), _methods(scores)
    shots = sorted({score.shots for score in scores} - {0}) or [0]
    sheet = TableBuilder(methods, [str(count) for count in shots], {})

    def seeds(data: str, method: str, count: int) -> _Seeds:
        return reached.get((data, method, count)) or reached.get((data, method, 0), {})

    for data in datasets:
        rows = {method: [seeds(data, method, count) for count in shots] for method in methods}
        sheet.figures[data] = {
            method: tuple(_mean_std(list(cell.values())) for cell in row) for method, row in rows.items() if any(row)
        }
    if len(datasets) > 1:
        sheet.figures[AVERAGE] = {}
        for method in methods:
            figures = []
            for count in shots:
                means, said = _average({data: seeds(data, method, count) for data in datasets})
                figures.append(_mean_std(means))
                sheet.notes += [f"{AVERAGE}, {method}, {_shots(count)}: {text}" for text in said]
            sheet.figures[AVERAGE][method] = tuple(figures)
    lead = "Trained on a few images of every class of a data set, tested on all its classes;"
    return sheet.table("few-shot", backbone, f"{lead} the columns are the images a class.")


def _of_shots(scores: Sequence[Score], shots: int) -> list[Score]:
    """The scores at a number of shots, with those of methods that learn from none on the same sources.

    What only such methods were tested on is in the tables of all shots.
    """
    here = {score.source for score in scores if score.shots == shots}
    anywhere = {score.source for score in scores if score.shots}
    return [
        score
        for score in scores
        if score.shots == shots or (not score.shots and (score.source in here or score.source not in anywhere))
    ]


def _average(parts: Mapping[str, _Seeds]) -> tuple[list[tuple[float, ...]], list[str]]:
    """Means over data sets, one a seed that all of them have; and what was left out."""
    lacking = sorted(data for data, seeds in parts.items() if not seeds)
    if lacking:
        said = [f"no average, {', '.join(lacking)} missing"] if len(lacking) < len(parts) else []
        return [], said
    everywhere = set[int].intersection(*(set(seeds) for seeds in parts.values())) if parts else set()
    partly = sorted({seed for seeds in parts.values() for seed in seeds} - everywhere)
    said = [f"seed {', '.join(map(str, partly))} left out, not every data set has it"] if partly else []
    means = [
        tuple(statistics.fmean(figures) for figures in zip(*(seeds[seed] for seeds in parts.values()), strict=True))
        for seed in sorted(everywhere)
    ]
    return means, said


def _mean_std(reached: Sequence[tuple[float, ...]]) -> MeanStd:
    return MeanStd.of([accuracy for (accuracy,) in reached])


def _methods(scores: Sequence[Score]) -> list[str]:
    """In order of first appearance, behind those that learn from no images."""
    return _unique(score.method for score in sorted(scores, key=lambda score: score.shots > 0))


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _shots(count: int) -> str:
    return {0: "no training images", 1: "1 shot"}.get(count, f"{count} shots")


def _setting(backbone: str, shots: int) -> str:
    return f"{backbone}, {_shots(shots)}"
