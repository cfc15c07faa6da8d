"""Tables in Markdown, as GitHub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gopro.report.shape import Cell, Line, Table
from gopro.report.words import figure, heading, label, notes


def markdown(tables: Iterable[Table]) -> str:
    """The tables below one another, each with its setting and notes, best means bold. Ends with a newline."""
    return "\n".join(map(_section, tables))


def _section(table: Table) -> str:
    rows = [
        [block.title, label(line), *(_figure(line, cell) for cell in line.cells)]
        for block in table.blocks
        for line in block.lines
    ]
    titles = len(table.heads)
    lines = [
        f"## {_escaped(heading(table))}",
        "",
        _escaped(table.lead),
        "",
        _row([*table.heads, *map(_escaped, table.columns)]),
        f"|{'---|' * titles}{'--:|' * len(table.columns)}",
        *(_row([*map(_escaped, row[2 - titles : 2]), *row[2:]]) for row in rows),
    ]
    if said := notes(table):
        lines += ["", *(f"- {_escaped(note)}" for note in said)]
    return "\n".join(lines) + "\n"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _figure(line: Line, cell: Cell) -> str:
    mean, std, difference = figure(line, cell)
    spread = f"{mean} ± {std}" if std else mean
    return (f"**{spread}**" if cell.best else spread) + (f" ({difference})" if difference else "")


def _escaped(text: str) -> str:
    """The text on one line, with what Markdown would take for its own; an underscore within a word is left alone."""
    return re.sub(r"[\\`*<>|~]|(?<![^\W_])_|_(?![^\W_])|\[(?=[^]]*\]\()", r"\\\g<0>", " ".join(text.split()))
