"""The geometry of a dot plot of base-to-new results; `templates/chart.svg` draws it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from gopro.report.tables import COLUMNS, BaseToNewRow, Spread, blocks

WIDTH = 360
"""Of a panel, in CSS pixels: it fits a phone without scaling, so that its text stays legible."""
LANE, HEADING, TOP, BOTTOM, RIGHT = 18, 26, 4, 24, 14
COLOURS = 8
LONGEST_NAME = 20


@dataclass(frozen=True)
class Lane:
    """One method's figure: where its dot and the ends of its error bar lie, in pixels."""

    method: str
    label: str
    colour: int
    y: float
    x: float | None
    low: float | None
    high: float | None
    spread: Spread


@dataclass(frozen=True)
class Panel:
    """One data set: headings as (text, y), lanes, ticks as (percent, x)."""

    title: str
    height: int
    left: int
    right: int
    bottom: int
    headings: list[tuple[str, float]]
    lanes: list[Lane]
    ticks: list[tuple[int, float]]


def colours(rows: Sequence[BaseToNewRow]) -> dict[str, int]:
    """Each method's colour, an index below COLOURS: the same in the table, the plot and the cards."""
    return {method: index % COLOURS for index, method in enumerate(dict.fromkeys(row.method for row in rows))}


def panels(rows: Sequence[BaseToNewRow]) -> list[Panel]:
    """One panel a data set, all on one percent axis."""
    spreads = [cast(Spread, getattr(row, column)) for row in rows for column in COLUMNS]
    known = [spread for spread in spreads if spread.count]
    if not known:
        return []
    ticks = _ticks(min(s.mean - (s.std or 0) for s in known), max(s.mean + (s.std or 0) for s in known))
    return [_panel(block, colours(rows), ticks) for block in blocks(rows)]


def _ticks(low: float, high: float) -> list[int]:
    """Round percentages that enclose low to high with few steps, within 0 to 100."""
    low, high = max(low, 0), min(high, 100)
    for step in (5, 10, 20, 25):
        first, last = math.floor(low / step) * step, math.ceil(high / step) * step
        if first == last:
            first, last = max(first - step, 0), min(last + step, 100)
        if (last - first) // step <= 5:
            break
    return list(range(first, last + 1, step))


def _panel(block: Sequence[BaseToNewRow], methods: Mapping[str, int], ticks: Sequence[int]) -> Panel:
    labels = {method: _shortened(method) for method in methods}
    left = 20 + round(6.6 * max(map(len, labels.values())))
    right = WIDTH - RIGHT

    def at(percent: float) -> float:
        share = (percent - ticks[0]) / (ticks[-1] - ticks[0])
        return round(left + min(max(share, 0), 1) * (right - left), 1)

    headings: list[tuple[str, float]] = []
    lanes: list[Lane] = []
    y = TOP
    for column, heading in COLUMNS.items():
        headings.append((heading, y + HEADING - 8))
        y += HEADING
        for row in block:
            spread: Spread = getattr(row, column)
            known, std = bool(spread.count), spread.std
            lanes.append(
                Lane(
                    method=row.method,
                    label=labels[row.method],
                    colour=methods[row.method],
                    y=y + LANE / 2,
                    x=at(spread.mean) if known else None,
                    low=at(spread.mean - std) if std is not None else None,
                    high=at(spread.mean + std) if std is not None else None,
                    spread=spread,
                )
            )
            y += LANE
    return Panel(block[0].data, y + BOTTOM, left, right, y + 4, headings, lanes, [(tick, at(tick)) for tick in ticks])


def _shortened(name: str) -> str:
    return name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
