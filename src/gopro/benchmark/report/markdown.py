"""Tables in Markdown, as GitHub reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gopro.benchmark.report.cells import compared, figure, heading, label, notes
from gopro.benchmark.report.table import Cell, Difference, Differences, Line, Table


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
        *_grid(table.heads, table.columns, ([*map(_escaped, row[2 - titles : 2]), *row[2:]] for row in rows)),
        *_list(notes(table)),
        *(_compared(table.differences) if table.differences else []),
    ]
    return "\n".join(lines) + "\n"


def _compared(differences: Differences) -> list[str]:
    rows = ([_escaped(method), *map(_difference, figures)] for method, figures in differences.lines.items())
    return [
        "",
        f"### {_escaped(differences.title)}",
        "",
        _escaped(differences.lead),
        "",
        *_grid(["Method"], differences.columns, rows),
        *_list(differences.notes),
    ]


def _grid(heads: Sequence[str], columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    rule = f"|{'---|' * len(heads)}{'--:|' * len(columns)}"
    return [_row([*heads, *map(_escaped, columns)]), rule, *map(_row, rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _list(said: Sequence[str]) -> list[str]:
    return ["", *(f"- {_escaped(note)}" for note in said)] if said else []


def _figure(line: Line, cell: Cell) -> str:
    mean, std, difference = figure(line, cell)
    mean_std = f"{mean} ± {std}" if std else mean
    return (f"**{mean_std}**" if cell.best else mean_std) + (f" ({difference})" if difference else "")


def _difference(cell: Difference | None) -> str:
    text = " ".join(filter(None, compared(cell)))
    return f"**{text}**" if cell and cell.clear else text


def _escaped(text: str) -> str:
    """The text on one line, with what Markdown would take for its own; an underscore within a word is left alone."""
    return re.sub(r"[\\`*<>|~]|(?<![^\W_])_|_(?![^\W_])|\[(?=[^]]*\]\()", r"\\\g<0>", " ".join(text.split()))
