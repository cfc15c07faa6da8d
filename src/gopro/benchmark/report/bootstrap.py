"""Each method's average minus that of one method, paired by data set and seed, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from gopro.benchmark.report.mean_std import harmonic_mean
from gopro.benchmark.report.rows import TRANSFER, Score
from gopro.benchmark.report.table import AVERAGE, Difference, Differences
from gopro.errors import InputError

REFERENCE = "gopro"
"""The method that others are compared with where none is named."""

RESAMPLES, SEED = 10_000, 0
LEVEL = 95
"""Percent of the resamples that an interval holds, as many left out below as above."""

_Cells = Mapping[tuple[str, int | None], tuple[float, ...]]
"""What a method reached by data set and seed: one accuracy, or base and new. A method that learns from no images has
no seed."""


def reference(methods: Iterable[str], against: str | None) -> str | None:
    """The method that the others are compared with: the one asked for, else `REFERENCE`, or None where that lacks.

    Raises:
        InputError: the one asked for is not among the methods.
    """
    there = dict.fromkeys(methods)
    if against is None:
        return REFERENCE if REFERENCE in there else None
    if against not in there:
        raise InputError(f"against {against}: it is not among the methods, {', '.join(there)}; choose one of these")
    return against


def differences(scores: Sequence[Score], methods: Sequence[str], against: str) -> Differences | None:
    """What a table averages, of each method minus that of `against`; None where there is nothing to compare.

    A method that learns from no images, run once, is paired with every seed of the other. What one of the two lacks
    is left out of both and said: data sets of which they have no seed in common, then seeds that not all of the other
    data sets have of both.

    Results of one data set resemble one another, and in the transfer protocols so do those of one seed, which one
    trained model gives; so an interval is over data sets and seeds drawn each for itself (the pigeonhole bootstrap,
    Owen 2007, Annals of Applied Statistics 1, p. 386). Cells drawn one by one would count as independent, and their
    intervals, where data sets differ, would be far too narrow.

    Args:
        scores: of one protocol and backbone, and of one number of shots unless the protocol is few-shot.
        methods: those of the scores, in the order of their lines.
    """
    others = [method for method in methods if method != against]
    groups = _groups(scores)
    if against not in methods or not others or not groups:
        return None
    lines: dict[str, list[Difference | None]] = {method: [] for method in others}
    left_out: dict[str, list[str]] = {}
    for titles, own in groups.items():
        cells = _cells(own)
        for method in others:
            figures, said = _compare(cells.get(method, {}), cells.get(against, {}), len(titles))
            lines[method] += figures
            for text in said:
                left_out.setdefault(text, []).append(f"{method}, {titles[0]}" if len(groups) > 1 else method)
    return Differences(
        against=against,
        lead=f"Each method's average minus that of {against}, in percentage points, paired by data set and seed: above "
        "0 the method is better.",
        columns=tuple(title for titles in groups for title in titles),
        lines={method: tuple(line) for method, line in lines.items()},
        notes=(
            *_how_to_read([figure for line in lines.values() for figure in line if figure is not None]),
            *(f"{'; '.join(sorted(where))}: {text}" for text, where in left_out.items()),
        ),
    )


def _groups(scores: Sequence[Score]) -> dict[tuple[str, ...], list[Score]]:
    """The scores that each column, or base, new and HM together, is made of, by the columns' titles."""
    protocol = scores[0].protocol
    if protocol == "base-to-new":
        return {("Base", "New", "HM"): list(scores)}
    if protocol not in TRANSFER:
        shots = sorted({score.shots for score in scores} - {0}) or [0]
        return {
            ("1 shot" if count == 1 else f"{count} shots",): [score for score in scores if score.shots in (0, count)]
            for count in shots
        }
    found: dict[str, list[Score]] = {}
    for score in scores:
        if score.data != score.source:
            found.setdefault(score.source, []).append(score)
    targets = {score.data for own in found.values() for score in own}
    if len(found) == 1:
        return {(AVERAGE if len(targets) > 1 else targets.pop(),): own for own in found.values()}
    return {(f"from {source}",): own for source, own in found.items()}


def _cells(scores: Iterable[Score]) -> dict[str, _Cells]:
    """By method. A cell that lacks its base or new half is left out."""
    halves: dict[str, dict[tuple[str, int | None], dict[str, float]]] = {}
    for score in scores:
        key = score.data, score.seed if score.shots else None
        halves.setdefault(score.method, {}).setdefault(key, {})[score.classes] = score.accuracy
    return {
        method: {
            key: tuple(half[name] for name in sorted(half))
            for key, half in own.items()
            if half.keys() in ({"all"}, {"base", "new"})
        }
        for method, own in halves.items()
    }


def _compare(mine: _Cells, theirs: _Cells, columns: int) -> tuple[list[Difference | None], list[str]]:
    """The differences, one a column, and what was left out."""
    mine, theirs = _at_seeds_of(theirs, mine), _at_seeds_of(mine, theirs)
    both, either = mine.keys() & theirs.keys(), mine.keys() | theirs.keys()
    datasets = sorted({data for data, _ in both})
    found = sorted({seed for data, seed in either if data in datasets}, key=lambda seed: seed or 0)
    seeds = [seed for seed in found if all((data, seed) in both for data in datasets)]
    said = [
        f"{data} left out, the two have no seed of it in common"
        for data in sorted({data for data, _ in either} - set(datasets))
    ]
    if partly := [str(seed) for seed in found if seed not in seeds]:
        said.append(f"seed {', '.join(partly)} left out, not every data set has it of both")
    if not seeds:
        return [None] * columns, said
    ours, reference = (
        _averages(np.array([[cells[data, seed] for seed in seeds] for data in datasets])) for cells in (mine, theirs)
    )
    draws = ours - reference
    ends = np.percentile(draws[1:], [50 - LEVEL / 2, 50 + LEVEL / 2], axis=0).T
    return [
        Difference(float(value), (float(low), float(high)) if len(seeds) > 1 else None, len(datasets))
        for value, (low, high) in zip(draws[0], ends, strict=True)
    ], said


def _at_seeds_of(other: _Cells, cells: _Cells) -> _Cells:
    """The cells, those without a seed at each seed that the other method has of their data set."""
    found: dict[tuple[str, int | None], tuple[float, ...]] = {}
    for (data, seed), figures in cells.items():
        seeds = {there for tested, there in other if tested == data} if seed is None else {seed}
        found |= {(data, own): figures for own in seeds or {None}}
    return found


def _averages(cells: Float[np.ndarray, "datasets seeds halves"]) -> Float[np.ndarray, "draws columns"]:
    """As the tables average: over data sets seed by seed, then base and new to their HM, then over seeds."""
    datasets, seeds = _weights(*cells.shape[:2])
    each = np.tensordot(datasets, cells, axes=1)
    if each.shape[-1] == 2:
        each = np.concatenate([each, harmonic_mean(each[..., :1], each[..., 1:])], axis=-1)
    return np.einsum("rs,rsc->rc", seeds, each)


@lru_cache(maxsize=8)
def _weights(*counts: int) -> tuple[Float[np.ndarray, "draws count"], ...]:
    """The share of each of so many data sets, and of seeds, in an average: all alike first, then in each resample."""
    random = np.random.default_rng(SEED)
    drawn = [random.integers(count, size=(RESAMPLES, count, 1)) for count in counts]
    times = [(own == np.arange(count)).sum(axis=1) for own, count in zip(drawn, counts, strict=True)]
    return tuple(np.vstack([np.ones(own.shape[1]), own]) / own.shape[1] for own in times)


def _how_to_read(figures: Collection[Difference]) -> Iterable[str]:
    intervals = [figure for figure in figures if figure.interval is not None]
    if intervals:
        yield (
            f"in brackets the {LEVEL} % interval over {RESAMPLES:,} resamples of the data sets and, apart from them, "
            "of the seeds; bold where it does not contain 0"
        )
    if any(figure.datasets == 1 for figure in intervals):
        yield "on one data set an interval is over the seeds alone"
    if len(intervals) < len(figures):
        yield "from one seed there is no interval"
