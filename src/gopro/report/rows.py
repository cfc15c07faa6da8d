"""Base-to-new tables from the rows of results.jsonl: mean ± standard deviation over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich import box
from rich.markup import escape
from rich.table import Table

from gopro.errors import InputError
from gopro.report.shape import AVERAGE
from gopro.report.spread import Spread

Column = Literal["base", "new", "hm"]
COLUMNS: dict[Column, str] = {"base": "Base", "new": "New", "hm": "HM"}


@dataclass(frozen=True, slots=True)
class BaseToNewRow:
    """One method on one data set, or on the average of all; `notes` say what was left out, and why."""

    data: str
    method: str
    base: Spread
    new: Spread
    hm: Spread
    notes: tuple[str, ...] = ()


def harmonic_mean(base: float, new: float) -> float:
    """2·B·N / (B + N), the single figure of base-to-new generalization (Xian et al., CVPR 2017); 0 if both are 0."""
    return 2 * base * new / (base + new) if base + new else 0.0


def base_to_new(rows: Sequence[Mapping[str, Any]]) -> list[BaseToNewRow]:
    """The base-to-new table of evaluations, one row a method and data set, in order of first appearance.

    HM is taken seed by seed. A seed that lacks one half is left out and the row's notes say so. With two data sets
    or more, a block named `AVERAGE` closes the table. As in CoCoOp's and GOPro's tables, its Base and New are means
    over the data sets and its HM is the harmonic mean of those two (not the mean of the data sets' HMs); this is
    done seed by seed and then spread over seeds. A method that does not depend on the seed may be
    evaluated with one seed alone. The standard deviation is that of a sample (n − 1).

    Args:
        rows: objects of results.jsonl with `protocol`, `data`, `method`, `backbone`, `shots`, `seed`, `classes` and
            `accuracy` (percent). Rows of other protocols and evaluations over all classes play no part.

    Raises:
        InputError: a key is missing, an accuracy is not a number from 0 to 100, an evaluation occurs twice, or one
            method on one data set has rows of several backbones or shots.
    """
    scores = _collect(rows)
    table = [_row(data, method, seeds) for (data, method), seeds in scores.items()]
    datasets = list(dict.fromkeys(data for data, _ in scores))
    table.sort(key=lambda row: datasets.index(row.data))
    if len(datasets) > 1:
        table += [_average(method, datasets, scores) for method in dict.fromkeys(method for _, method in scores)]
    return table


def rich_table(rows: Sequence[BaseToNewRow]) -> Table:
    """The table for a terminal, best means bold, notes as its caption."""
    table = Table(
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        caption="\n".join(map(escape, notes(rows))) or None,
        caption_justify="left",
    )
    table.add_column("Data", overflow="fold")
    table.add_column("Method", overflow="fold")
    for title in COLUMNS.values():
        table.add_column(title, justify="right", no_wrap=True)
    for block in blocks(rows):
        winners = best(block)
        for row in block:
            figures = [str(getattr(row, column)) for column in COLUMNS]
            table.add_row(
                escape(row.data) if row is block[0] else "",
                escape(row.method),
                *(
                    f"[bold]{text}[/bold]" if (row.method, column) in winners else text
                    for column, text in zip(COLUMNS, figures, strict=True)
                ),
                end_section=row is block[-1],
            )
    return table


def markdown_table(rows: Sequence[BaseToNewRow]) -> str:
    """The table in Markdown, best means bold, notes as a list below it. Ends with a newline."""
    lines = [f"| Data | Method | {' | '.join(COLUMNS.values())} |", "|---|---|--:|--:|--:|"]
    for block in blocks(rows):
        winners = best(block)
        for row in block:
            figures = {column: str(getattr(row, column)) for column in COLUMNS}
            cells = [f"**{text}**" if (row.method, column) in winners else text for column, text in figures.items()]
            names = [name.replace("|", "\\|") for name in (row.data, row.method)]
            lines.append(f"| {' | '.join([*names, *cells])} |")
    if said := notes(rows):
        lines += ["", *(f"- {note}" for note in said)]
    return "\n".join(lines) + "\n"


def blocks(rows: Sequence[BaseToNewRow]) -> list[list[BaseToNewRow]]:
    """The rows by data set, in order of first appearance."""
    grouped: dict[str, list[BaseToNewRow]] = {}
    for row in rows:
        grouped.setdefault(row.data, []).append(row)
    return list(grouped.values())


def best(block: Sequence[BaseToNewRow]) -> set[tuple[str, Column]]:
    """(method, column) of the best means of one data set's rows, as printed: what prints the same ties.

    Nothing is best in a block of one method.
    """
    winners: set[tuple[str, Column]] = set()
    for column in COLUMNS:
        spreads: dict[str, Spread] = {row.method: getattr(row, column) for row in block}
        means = {method: round(spread.mean, 2) for method, spread in spreads.items() if spread.count}
        if len(means) > 1:
            winners |= {(method, column) for method, mean in means.items() if mean == max(means.values())}
    return winners


def notes(rows: Sequence[BaseToNewRow]) -> list[str]:
    """All notes, each with its data set and method in front."""
    return [f"{row.data}, {row.method}: {note}" for row in rows for note in row.notes]


_Halves = dict[str, float]
_Seeds = dict[Hashable, _Halves]


def _collect(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], _Seeds]:
    scores: dict[tuple[str, str], _Seeds] = {}
    settings: dict[tuple[str, str], tuple[Any, Any]] = {}
    for number, row in enumerate(rows, start=1):
        try:
            if row["protocol"] != "base-to-new" or row["classes"] == "all":
                continue
            data, method, seed, half = row["data"], row["method"], row["seed"], row["classes"]
            setting, accuracy = (row["backbone"], row["shots"]), row["accuracy"]
        except KeyError as missing:
            raise InputError(f"result {number} has no {missing}: a row of results.jsonl needs it") from None
        where = f"result {number} ({data}, {method}, seed {seed}, {half})"
        if half not in ("base", "new"):
            raise InputError(f"{where}: classes is {half!r}; it must be base, new or all")
        if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 100:
            raise InputError(f"{where}: accuracy is {accuracy!r}; it must be a percentage from 0 to 100")
        if (first := settings.setdefault((data, method), setting)) != setting:
            raise InputError(
                f"{where}: backbone and shots are {setting}, but {first} in earlier rows; make one table for each"
            )
        halves = scores.setdefault((data, method), {}).setdefault(seed, {})
        if half in halves:
            raise InputError(f"{where} occurs twice: remove one of the two")
        halves[half] = float(accuracy)
    return scores


def _complete(seeds: _Seeds) -> dict[Hashable, tuple[float, float]]:
    return {seed: (halves["base"], halves["new"]) for seed, halves in seeds.items() if len(halves) == 2}


def _row(data: str, method: str, seeds: _Seeds) -> BaseToNewRow:
    said = tuple(
        f"seed {seed} left out, its {'new' if 'base' in halves else 'base'} half is missing"
        for seed, halves in seeds.items()
        if len(halves) == 1
    )
    return _spread(data, method, list(_complete(seeds).values()), said)


def _average(method: str, datasets: Sequence[str], scores: Mapping[tuple[str, str], _Seeds]) -> BaseToNewRow:
    complete = [_complete(scores.get((data, method), {})) for data in datasets]
    lacking = [data for data, seeds in zip(datasets, complete, strict=True) if not seeds]
    if lacking:
        return _spread(AVERAGE, method, [], (f"no average, {', '.join(lacking)} is missing",))
    everywhere = [seed for seed in complete[0] if all(seed in seeds for seeds in complete)]
    partly = sorted({str(seed) for seeds in complete for seed in seeds if seed not in everywhere})
    said = (f"seed {', '.join(partly)} left out, not every data set has it",) if partly else ()
    pairs = [
        (statistics.fmean(seeds[seed][0] for seeds in complete), statistics.fmean(seeds[seed][1] for seeds in complete))
        for seed in everywhere
    ]
    return _spread(AVERAGE, method, pairs, said)


def _spread(data: str, method: str, pairs: Sequence[tuple[float, float]], said: tuple[str, ...]) -> BaseToNewRow:
    base, new = [b for b, _ in pairs], [n for _, n in pairs]
    hm = [harmonic_mean(b, n) for b, n in pairs]
    return BaseToNewRow(data, method, Spread.of(base), Spread.of(new), Spread.of(hm), said)
