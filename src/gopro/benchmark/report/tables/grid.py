"""Tables as text, cell by cell: the common step before Markdown, LaTeX and terminal output."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gopro.benchmark.report.tables.table import Block, Cell, Difference, Differences, Line, Table

LINE_WIDTH = 76
"""Characters of figures and column titles that fit on one line beside the method names."""


@dataclass(frozen=True, slots=True)
class GridCell:
    """The text of one cell.

    Attributes:
        value: the mean, `72.41`, or `–` where there is none.
        detail: `± 0.83`, or an interval `[−1.90, −0.61]`, or "".
        change: difference to the published figure, `+1.00`, or "".
        bold: set `value` and `detail` in bold.
    """

    value: str
    detail: str = ""
    change: str = ""
    bold: bool = False

    @property
    def parts(self) -> list[str]:
        """The texts that are not empty, the change in parentheses."""
        return [part for part in (self.value, self.detail, self.change and f"({self.change})") if part]


@dataclass(frozen=True, slots=True)
class GridRow:
    """One method: its names, one per head of the grid, and its cells, one per column."""

    names: tuple[str, ...]
    cells: tuple[GridCell, ...]
    published: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as text.

    Attributes:
        title: protocol and setting.
        subtitle: "" for the results, `Difference from gopro` for the differences.
        lead: how to read the table.
        heads: titles of the columns of names.
        columns: titles of the columns of figures.
        blocks: groups of rows, to be set apart.
        notes: each is a clause without a full stop, or one or more sentences.
    """

    title: str
    subtitle: str
    lead: str
    heads: tuple[str, ...]
    columns: tuple[str, ...]
    blocks: tuple[tuple[GridRow, ...], ...]
    notes: tuple[str, ...]

    @property
    def is_wide(self) -> bool:
        """True if the columns do not fit on one line, so the parts of each figure and title are stacked."""
        rows = [[" ".join(cell.parts) for cell in row.cells] for block in self.blocks for row in block]
        return sum(max(map(len, column)) for column in zip(self.columns, *rows, strict=True)) > LINE_WIDTH


def grids(table: Table) -> Iterator[Grid]:
    """Yield the results of a table and, if it has them, its differences to one method."""
    title = f"{table.title}: {table.setting}"
    blocks = tuple(_block(block, len(table.heads) > 1) for block in table.blocks)
    notes = (*(f"‡ {caveat}" for caveat in table.caveats), *table.notes)
    if any(row.published for block in blocks for row in block):
        notes = ("† not run here; figures as published", *notes)
    yield Grid(title, "", table.lead, table.heads, table.columns, blocks, notes)
    if table.differences is not None:
        yield _differences(title, table.differences)


def _block(block: Block, titled: bool) -> tuple[GridRow, ...]:
    rows = []
    for line in block.lines:
        mark = " †" if line.published else " ‡" if line.caveat else ""
        label = f"{line.label}{mark}"
        names = (block.title, label) if titled else (label,)
        rows.append(GridRow(names, tuple(_cell(line, cell) for cell in line.cells), line.published))
    return tuple(rows)


def _cell(line: Line, cell: Cell) -> GridCell:
    if line.published:
        return GridCell("–" if cell.published is None else f"{cell.published:.2f}")
    if not cell.measured.count:
        return GridCell("–")
    std, change = cell.measured.std, cell.difference
    return GridCell(
        value=f"{cell.measured.mean:.2f}",
        detail="" if std is None else f"± {std:.2f}",
        change="" if change is None else signed(change),
        bold=cell.best,
    )


def _differences(title: str, differences: Differences) -> Grid:
    rows = []
    for method, line in differences.lines.items():
        cells = [GridCell(*difference_text(cell), bold=cell is not None and cell.excludes_zero) for cell in line]
        rows.append(GridRow((method,), tuple(cells)))
    return Grid(
        title,
        differences.title,
        differences.lead,
        ("Method",),
        differences.columns,
        (tuple(rows),),
        differences.notes,
    )


def named_rows(block: Sequence[GridRow]) -> Iterator[tuple[tuple[str, ...], GridRow]]:
    """Yield each row of a block with its names; only the first row shows the block's title."""
    for row in block:
        yield (row.names if row is block[0] else (*("" for _ in row.names[1:]), row.names[-1])), row


def signed(value: float, digits: int = 2) -> str:
    """Format a difference with its sign, `+1.23` or `−1.23`; what rounds to 0 has none."""
    text = f"{value:+.{digits}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def difference_text(difference: Difference | None) -> tuple[str, str]:
    """Return the mean difference and its interval, `−1.23` and `[−1.90, −0.61]`; "" for no interval."""
    if difference is None:
        return "–", ""
    ends = ", ".join(map(signed, difference.interval or ()))
    return signed(difference.mean), f"[{ends}]" if ends else ""


def breakable_parts(name: str) -> Sequence[str]:
    """Split a name where a line may break: `oxford_flowers` after `oxford_`, `gopro[con=0]` before `con`."""
    return re.findall(r".+?(?:[_:/ [;-]+|$)", name)
