"""What all renderings of a table write alike."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from gopro.benchmark.report.table import Cell, Difference, Line, Table

LINE = 76
"""Characters of figures and their titles that fit one line beside the names."""


def heading(table: Table) -> str:
    """The table's protocol and setting."""
    return f"{table.title}: {table.setting}"


def label(line: Line) -> str:
    """The method; what was not run is marked."""
    return f"{line.label} †" if line.published else line.label


def notes(table: Table) -> tuple[str, ...]:
    """The table's notes, with what the mark means where it stands."""
    marked = any(line.published for block in table.blocks for line in block.lines)
    return ("† not run here, figures as published", *table.notes) if marked else table.notes


def figure(line: Line, cell: Cell) -> tuple[str, str, str]:
    """Mean, standard deviation and signed difference to the published figure, "" where there is none.

    Of a published line the mean is the published figure.
    """
    if line.published:
        return "–" if cell.published is None else f"{cell.published:.2f}", "", ""
    if not cell.measured.count:
        return "–", "", ""
    std, difference = cell.measured.std, cell.difference
    return (
        f"{cell.measured.mean:.2f}",
        "" if std is None else f"{std:.2f}",
        "" if difference is None else f"{difference:+z.2f}",
    )


def one_line(line: Line, cell: Cell) -> str:
    """The same as one text."""
    mean, std, difference = figure(line, cell)
    return mean + (f" ± {std}" if std else "") + (f" ({difference})" if difference else "")


def signed(value: float, digits: int = 2) -> str:
    """With its sign, which says more than a colour; 0.00 without."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def compared(difference: Difference | None) -> tuple[str, str]:
    """The mean difference and its interval, `−1.23` and `[−1.90, −0.61]`; "" where there is no interval."""
    if difference is None:
        return "–", ""
    ends = ", ".join(map(signed, difference.interval or ()))
    return signed(difference.mean), f"[{ends}]" if ends else ""


def is_wide(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> bool:
    """Whether the columns do not fit one line, so that the parts of each figure and title go below one another."""
    return sum(max(map(len, column)) for column in zip(columns, *lines, strict=True)) > LINE


def pieces(name: str) -> list[str]:
    """A name where it may be broken: `oxford_flowers` as `oxford_` and `flowers`, `gopro[con=0]` before `con`."""
    return re.findall(r".+?(?:[_:/ [;-]+|$)", name)
