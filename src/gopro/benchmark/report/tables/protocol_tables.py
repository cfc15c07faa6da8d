"""Tables of all protocols from the rows of results.jsonl: mean ± standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gopro.benchmark.report.rows import PROTOCOL_TITLES, TRANSFER, Score, read_scores
from gopro.benchmark.report.tables.bootstrap import differences
from gopro.benchmark.report.tables.mean_std import MeanStd, harmonic_mean, seed_list
from gopro.benchmark.report.tables.published import SOURCE, published
from gopro.benchmark.report.tables.table import AVERAGE, Table
from gopro.benchmark.report.tables.table_builder import TableBuilder
from gopro.data.few_shot import Shots, distinct_shots, shots_in_words

_BySeed = Mapping[int, tuple[float, ...]]
"""The accuracy of each seed, or its accuracies on base and new."""


def tables(rows: Iterable[Mapping[str, Any]], against: str | None = None) -> list[Table]:
    """Build one table per protocol, backbone and number of shots; few-shot has the shots as columns of one table.

    A method that learns from no images (0 shots) is in the tables of all shots, before the others. Averages are taken
    over data sets for each seed, then over seeds; a seed that not every data set has is left out, with a note.
    docs/protocols.md describes the averages of each protocol. The paper's figures for the same setting stand beside
    ours, and its methods that were not run close each block.

    Args:
        rows: objects of results.jsonl with all keys of `gopro.runs.results.KEY` and `accuracy` (percent).
        against: the method to compare the others with (see `differences`), in the tables that contain it.

    Raises:
        InputError: a row lacks a key, has an impossible value, contradicts its protocol, or occurs twice.
    """
    scores = read_scores(rows)
    built: list[tuple[Table, Sequence[Score]]] = []
    for protocol in PROTOCOL_TITLES:
        for backbone in dict.fromkeys(score.backbone for score in scores if score.protocol == protocol):
            own = [score for score in scores if (score.protocol, score.backbone) == (protocol, backbone)]
            if protocol == "few-shot":
                built.append((_few_shot(backbone, own), own))
                continue
            for shots in distinct_shots(score.shots for score in own) or [0]:
                part = _with_shots(own, shots)
                table = _transfer(part, shots) if protocol in TRANSFER else _base_to_new(part, shots)
                built.append((table, part))
    if against is None:
        return [table for table, _ in built]
    return [replace(table, differences=differences(part, _methods(part), against)) for table, part in built]


def _base_to_new(scores: Sequence[Score], shots: Shots) -> Table:
    halves: dict[tuple[str, str], dict[int, dict[str, float]]] = {}
    for score in scores:
        halves.setdefault((score.data, score.method), {}).setdefault(score.seed, {})[score.classes] = score.accuracy
    datasets, methods, backbone = _unique(score.data for score in scores), _methods(scores), scores[0].backbone
    builder = TableBuilder(methods, ("Base", "New", "HM"), published("base-to-new", backbone, shots, datasets))
    pairs: dict[tuple[str, str], _BySeed] = {}
    for data in datasets:
        builder.figures[data] = {}
        for method in methods:
            seeds = halves.get((data, method), {})
            pairs[data, method] = {seed: (half["base"], half["new"]) for seed, half in seeds.items() if len(half) == 2}
            if seeds:
                builder.figures[data][method] = _with_hm(list(pairs[data, method].values()))
            for seed, half in sorted(seeds.items()):
                if len(half) == 1:
                    missing = "new" if "base" in half else "base"
                    builder.notes.append(
                        f"{data}, {method}: without seed {seed}, as its result on the {missing} classes is missing"
                    )
    if len(datasets) > 1:
        builder.figures[AVERAGE] = {}
        for method in methods:
            means, notes = _average({data: pairs[data, method] for data in datasets})
            builder.figures[AVERAGE][method] = _with_hm(means)
            builder.notes += [f"{AVERAGE}, {method}: {note}" for note in notes]
    lead = "Trained on the base classes of a data set; tested on its base classes and on its new classes separately."
    lead += " HM is the harmonic mean of the two."
    return builder.build("base-to-new", _setting(backbone, shots), lead)


def _with_hm(pairs: Sequence[tuple[float, ...]]) -> tuple[MeanStd, ...]:
    """Return base, new and their harmonic mean, which is taken for each seed."""
    base, new = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    hm = harmonic_mean(np.array(base), np.array(new)).tolist()
    return MeanStd.of(base), MeanStd.of(new), MeanStd.of(hm)


def _transfer(scores: Sequence[Score], shots: Shots) -> Table:
    accuracies: dict[tuple[str, str, str], dict[int, tuple[float]]] = {}
    for score in scores:
        accuracies.setdefault((score.source, score.method, score.data), {})[score.seed] = (score.accuracy,)
    sources, methods = _unique(score.source for score in scores), _methods(scores)
    targets = {
        source: _unique(score.data for score in scores if score.source == source != score.data) for source in sources
    }
    columns = _unique([*sources, *(data for names in targets.values() for data in names)])
    if any(len(names) > 1 for names in targets.values()):
        columns.append(AVERAGE)
    protocol, backbone = scores[0].protocol, scores[0].backbone
    builder = TableBuilder(methods, columns, published(protocol, backbone, shots, targets.get(SOURCE, ())))
    for source in sources:
        builder.figures[source] = {}
        for method in methods:
            own = {data: accuracies.get((source, method, data), {}) for data in columns}
            if not any(own.values()):
                continue
            means, notes = _average({data: own[data] for data in targets[source]})
            name = f"{source}, {method}" if len(sources) > 1 else method
            builder.notes += [f"{name}: {note}" for note in notes]
            figures = {data: _mean_std(list(seeds.values())) for data, seeds in own.items()}
            figures[AVERAGE] = _mean_std(means)
            builder.figures[source][method] = tuple(figures[column] for column in columns)
    others = "other data sets" if protocol == "cross-dataset" else "the same classes in other domains"
    source = sources[0] if len(sources) == 1 else "one data set, the source"
    lead = f"Trained on all classes of {source}; tested on it and, without further training, on {others}."
    if AVERAGE in columns:
        lead += " The average leaves out the data set that was trained on."
    return builder.build(protocol, _setting(backbone, shots), lead, {sources[0]: ""} if len(sources) == 1 else None)


def _few_shot(backbone: str, scores: Sequence[Score]) -> Table:
    accuracies: dict[tuple[str, str, Shots], dict[int, tuple[float]]] = {}
    for score in scores:
        accuracies.setdefault((score.data, score.method, score.shots), {})[score.seed] = (score.accuracy,)
    datasets, methods = _unique(score.data for score in scores), _methods(scores)
    shots = distinct_shots(score.shots for score in scores) or [0]
    builder = TableBuilder(methods, [str(count) for count in shots], {})

    def seeds(data: str, method: str, count: Shots) -> _BySeed:
        return accuracies.get((data, method, count)) or accuracies.get((data, method, 0), {})

    for data in datasets:
        lines = {method: [seeds(data, method, count) for count in shots] for method in methods}
        builder.figures[data] = {
            method: tuple(_mean_std(list(cell.values())) for cell in line)
            for method, line in lines.items()
            if any(line)
        }
    if len(datasets) > 1:
        builder.figures[AVERAGE] = {}
        for method in methods:
            figures = []
            for count in shots:
                means, notes = _average({data: seeds(data, method, count) for data in datasets})
                figures.append(_mean_std(means))
                builder.notes += [f"{AVERAGE}, {method}, {shots_in_words(count)}: {note}" for note in notes]
            builder.figures[AVERAGE][method] = tuple(figures)
    lead = "Trained on a few images of every class of a data set; tested on all its classes."
    return builder.build("few-shot", backbone, f"{lead} The columns are numbers of training images per class.")


def _with_shots(scores: Sequence[Score], shots: Shots) -> list[Score]:
    """Return the scores with a number of shots and, on the same sources, those of methods that learn from no images.

    Sources on which only such methods were tested are in the tables of all shots.
    """
    here = {score.source for score in scores if score.shots == shots}
    anywhere = {score.source for score in scores if score.shots}
    return [
        score
        for score in scores
        if score.shots == shots or (not score.shots and (score.source in here or score.source not in anywhere))
    ]


def _average(parts: Mapping[str, _BySeed]) -> tuple[list[tuple[float, ...]], list[str]]:
    """Average over data sets for each seed that all of them have; return the means and notes on what was left out."""
    missing = sorted(data for data, seeds in parts.items() if not seeds)
    if missing:
        notes = [f"no average, as results on {', '.join(missing)} are missing"] if len(missing) < len(parts) else []
        return [], notes
    everywhere = set[int].intersection(*(set(seeds) for seeds in parts.values())) if parts else set()
    left_out = sorted({seed for seeds in parts.values() for seed in seeds} - everywhere)
    means = [
        tuple(statistics.fmean(figures) for figures in zip(*(seeds[seed] for seeds in parts.values()), strict=True))
        for seed in sorted(everywhere)
    ]
    return means, [f"without {seed_list(left_out)}, which not every data set has"] if left_out else []


def _mean_std(accuracies: Sequence[tuple[float, ...]]) -> MeanStd:
    return MeanStd.of([accuracy for (accuracy,) in accuracies])


def _methods(scores: Sequence[Score]) -> list[str]:
    """Return the methods in order of first appearance, those that learn from no images first."""
    return _unique(score.method for score in sorted(scores, key=lambda score: score.shots != 0))


def _unique(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _setting(backbone: str, shots: Shots) -> str:
    return f"{backbone}, {shots_in_words(shots)}"
