"""Tables in GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gopro.benchmark.report.tables.grid import Grid, GridCell, grids
from gopro.benchmark.report.tables.table import Table


def markdown(tables: Iterable[Table]) -> str:
    """Render the tables one below the other, each with its setting and notes; the best means are bold."""
    return "\n".join(_section(grid) for table in tables for grid in grids(table))


def _section(grid: Grid) -> str:
    heading = f"### {_escaped(grid.subtitle)}" if grid.subtitle else f"## {_escaped(grid.title)}"
    rows = [[*map(_escaped, row.names), *map(_figure, row.cells)] for block in grid.blocks for row in block]
    lines = [
        *(heading, "", _escaped(grid.lead), ""),
        _row([*grid.heads, *map(_escaped, grid.columns)]),
        f"|{'---|' * len(grid.heads)}{'--:|' * len(grid.columns)}",
        *map(_row, rows),
        *([""] if grid.notes else []),
        *(f"- {_escaped(note)}" for note in grid.notes),
    ]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figure(cell: GridCell) -> str:
    text = f"{cell.value} {cell.detail}".rstrip()
    return (f"**{text}**" if cell.bold else text) + (f" ({cell.change})" if cell.change else "")


def _escaped(text: str) -> str:
    """Return the text on one line with Markdown's special characters escaped, except underscores within words."""
    return re.sub(r"[\\`*<>|~]|(?<![^\W_])_|_(?![^\W_])|\[(?=[^]]*\]\()", r"\\\g<0>", " ".join(text.split()))
