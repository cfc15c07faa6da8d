"""Difference of each method's average from that of a reference method, paired, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float

from gopro.benchmark.report.rows import TRANSFER, Score
from gopro.benchmark.report.tables.mean_std import harmonic_mean, seed_list
from gopro.benchmark.report.tables.table import AVERAGE, Difference, Differences
from gopro.data.few_shot import distinct_shots, shots_in_words
from gopro.errors import InputError

REFERENCE = "gopro"
"""The method that others are compared with by default."""

RESAMPLES, RANDOM_SEED = 10_000, 0
CONFIDENCE = 95
"""Percent of the resamples within an interval; the rest is split evenly between both tails."""

_Cells = Mapping[tuple[str, int | None], tuple[float, ...]]
"""One method's accuracy, or those of base and new, by data set and seed (None if it learns from no images)."""


def reference(methods: Iterable[str], against: str | None) -> str | None:
    """Return the method to compare with: `against`, else `REFERENCE`, or None if that was not run.

    Raises:
        InputError: `against` is not among the methods.
    """
    names = dict.fromkeys(methods)
    if against is None:
        return REFERENCE if REFERENCE in names else None
    if against not in names:
        raise InputError(f"--against {against}: not among the methods compared; choose one of {', '.join(names)}")
    return against


def differences(scores: Sequence[Score], methods: Sequence[str], against: str) -> Differences | None:
    """Compare the averages of a table with those of the method `against`; None if there is nothing to compare.

    A method that learns from no images is run once, so it is paired with every seed of the other method. Results that
    only one of the two methods has are left out, with a note: first data sets on which they share no seed, then seeds
    that not all remaining data sets have for both.

    Results on the same data set are correlated, and so are results of one seed in the transfer protocols, where they
    come from one trained model. Data sets and seeds are therefore resampled independently of each other (the pigeonhole
    bootstrap, Owen 2007, Annals of Applied Statistics 1, p. 386). Resampling single results would treat them as
    independent and give intervals that are far too narrow where data sets differ.

    `scipy.stats.bootstrap` draws the same resamples, but refuses a sample of one data set.

    Args:
        scores: of one protocol and backbone, and of one number of shots unless the protocol is few-shot.
        methods: the methods of the scores, in the order of their lines.
    """
    others = [method for method in methods if method != against]
    columns = _columns(scores)
    if against not in methods or not others or not columns:
        return None
    lines: dict[str, list[Difference | None]] = {method: [] for method in others}
    left_out: dict[str, list[str]] = {}
    for titles, own in columns.items():
        cells = _cells(own)
        for method in others:
            figures, notes = _compare(cells.get(method, {}), cells.get(against, {}), len(titles))
            lines[method] += figures
            for note in notes:
                left_out.setdefault(note, []).append(f"{method}, {titles[0]}" if len(columns) > 1 else method)
    return Differences(
        against=against,
        lead=f"Each method's average minus that of {against}, in percentage points, paired by data set and seed. A "
        f"method with a positive difference is better than {against}.",
        columns=tuple(title for titles in columns for title in titles),
        lines={method: tuple(line) for method, line in lines.items()},
        notes=(
            *_how_to_read([figure for line in lines.values() for figure in line if figure is not None]),
            *(f"{'; '.join(sorted(methods))}: {note}" for note, methods in left_out.items()),
        ),
    )


def _columns(scores: Sequence[Score]) -> dict[tuple[str, ...], list[Score]]:
    """Return the scores behind each column by its title; base, new and HM share theirs."""
    protocol = scores[0].protocol
    if protocol == "base-to-new":
        return {("Base", "New", "HM"): list(scores)}
    if protocol not in TRANSFER:
        shots = distinct_shots(score.shots for score in scores) or [0]
        return {
            (shots_in_words(count) if count else "0 shots",): [score for score in scores if score.shots in (0, count)]
            for count in shots
        }
    by_source: dict[str, list[Score]] = {}
    for score in scores:
        if score.data != score.source:
            by_source.setdefault(score.source, []).append(score)
    targets = {score.data for own in by_source.values() for score in own}
    if len(by_source) == 1:
        return {(AVERAGE if len(targets) > 1 else targets.pop(),): own for own in by_source.values()}
    columns = {(f"from {source}",): own for source, own in by_source.items()}
    if len(targets) == len(by_source) > 1 and all(
        len({score.data for score in own}) == 1 for own in by_source.values()
    ):
        # Each source has one target of its own, as where each domain is left out once.
        columns[AVERAGE,] = [score for own in by_source.values() for score in own]
    return columns


def _cells(scores: Iterable[Score]) -> dict[str, _Cells]:
    """Return the cells of each method. A cell without its base or new half is left out."""
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


def _compare(ours: _Cells, theirs: _Cells, columns: int) -> tuple[list[Difference | None], list[str]]:
    """Return the differences, one per column, and notes on what was left out."""
    ours, theirs = _with_seeds_of(theirs, ours), _with_seeds_of(ours, theirs)
    both, either = ours.keys() & theirs.keys(), ours.keys() | theirs.keys()
    datasets = sorted({data for data, _ in both})
    any_seed = sorted({seed for data, seed in either if data in datasets}, key=lambda seed: seed or 0)
    seeds = [seed for seed in any_seed if all((data, seed) in both for data in datasets)]
    notes = [
        f"without {data}, on which the two methods share no seed"
        for data in sorted({data for data, _ in either} - set(datasets))
    ]
    if left_out := [seed for seed in any_seed if seed is not None and seed not in seeds]:
        notes.append(f"without {seed_list(left_out)}, which not every data set has for both methods")
    if not seeds:
        return [None] * columns, notes
    our_draws, their_draws = (
        _averages(np.array([[cells[data, seed] for seed in seeds] for data in datasets])) for cells in (ours, theirs)
    )
    draws = our_draws - their_draws
    ends = np.percentile(draws[1:], [50 - CONFIDENCE / 2, 50 + CONFIDENCE / 2], axis=0).T
    return [
        Difference(float(mean), (float(low), float(high)) if len(seeds) > 1 else None, len(datasets))
        for mean, (low, high) in zip(draws[0], ends, strict=True)
    ], notes


def _with_seeds_of(other: _Cells, cells: _Cells) -> _Cells:
    """Repeat each cell without a seed for every seed that the other method has on its data set."""
    repeated: dict[tuple[str, int | None], tuple[float, ...]] = {}
    for (data, seed), figures in cells.items():
        seeds = {other_seed for other_data, other_seed in other if other_data == data} if seed is None else {seed}
        repeated |= {(data, own): figures for own in seeds or {None}}
    return repeated


def _averages(cells: Float[np.ndarray, "datasets seeds halves"]) -> Float[np.ndarray, "draws columns"]:
    """Average as the tables do: over data sets for each seed, then base and new to their HM, then over seeds.

    Draw 0 is the data as measured; the others are resamples, the same ones in every call.
    """
    datasets, seeds = _weights(*cells.shape[:2])
    per_seed = np.tensordot(datasets, cells, axes=1)  # [draws, seeds, halves]
    if per_seed.shape[-1] == 2:
        per_seed = np.concatenate([per_seed, harmonic_mean(per_seed[..., :1], per_seed[..., 1:])], axis=-1)
    return np.einsum("rs,rsc->rc", seeds, per_seed)


@lru_cache(maxsize=8)
def _weights(*counts: int) -> tuple[Float[np.ndarray, "draws count"], ...]:
    """Return the weight of each data set, and of each seed, in each draw; they are equal in draw 0.

    In a resample the weight of an item is the number of times it was drawn, divided by the number of items.
    """
    random = np.random.default_rng(RANDOM_SEED)
    drawn = [random.integers(count, size=(RESAMPLES, count, 1)) for count in counts]
    times = [(own == np.arange(count)).sum(axis=1) for own, count in zip(drawn, counts, strict=True)]
    return tuple(np.vstack([np.ones(own.shape[1]), own]) / own.shape[1] for own in times)


def _how_to_read(figures: Collection[Difference]) -> Iterable[str]:
    intervals = [figure for figure in figures if figure.interval is not None]
    if intervals:
        yield (
            f"Brackets hold the {CONFIDENCE} % bootstrap interval over {RESAMPLES:,} resamples of data sets and, "
            "independently, of seeds. A difference is bold if its interval excludes 0."
        )
    if any(figure.datasets == 1 for figure in intervals):
        yield "The interval of a single data set covers seeds alone."
    if len(intervals) < len(figures):
        yield "A difference from one seed has no interval."
