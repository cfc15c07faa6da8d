"""Tables in a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table as RichTable
from rich.text import Text

from gopro.benchmark.report.cells import compared, figure, heading, is_wide, label, notes, one_line, pieces
from gopro.benchmark.report.table import Cell, Difference, Differences, Line, Table


def rich_table(table: Table) -> RichTable:
    """The table for rich to print: best means bold, differences to published figures green or red, notes below.

    Base to new fits 100 columns. What is wider, such as cross-dataset over eleven data sets, has deviation and
    difference below the mean and its titles broken, and fits 120.
    """
    lines = [line for block in table.blocks for line in block.lines]
    wide = is_wide(table.columns, ([one_line(line, cell) for cell in line.cells] for line in lines))
    made = _empty(heading(table), table.heads, table.columns, (table.lead, *notes(table)), wide)
    for block in table.blocks:
        for line in block.lines:
            title = [block.title if line is block.lines[0] else ""] if len(table.heads) > 1 else []
            made.add_row(
                *(escape(text) for text in (*title, label(line))),
                *(_markup(line, cell, "\n" if wide else " ") for cell in line.cells),
                style="dim" if line.published else None,
                end_section=line is block.lines[-1],
            )
    return made


def rich_differences(differences: Differences) -> Group:
    """The differences for rich to print, bold where an interval does not contain 0; notes below.

    Three columns fit 80 characters. What is wider has each interval below its mean.
    """
    texts = [[" ".join(compared(cell)) for cell in line] for line in differences.lines.values()]
    wide = is_wide(differences.columns, texts)
    made = _empty(differences.title, ("Method",), differences.columns, (), wide)
    for method, line in differences.lines.items():
        made.add_row(escape(method), *(_difference(cell, "\n" if wide else " ") for cell in line))
    # Not the caption, which would be as narrow as the table.
    return Group(made, Text("\n".join((differences.lead, *differences.notes)), style="table.caption"), "")


def _empty(title: str, heads: Sequence[str], columns: Sequence[str], said: Sequence[str], wide: bool) -> RichTable:
    made = RichTable(
        title=escape(title),
        title_style="bold",
        title_justify="left",
        caption=escape("\n".join(said)) or None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 0) if wide else (0, 1),
    )
    for head in heads:
        made.add_column(head, overflow="fold")
    for column in columns:
        made.add_column(escape("\n".join(pieces(column)) if wide else column), justify="right", no_wrap=True)
    return made


def _markup(line: Line, cell: Cell, between: str) -> str:
    mean, std, difference = figure(line, cell)
    spread = f"{mean}{between}±{std}" if std and between == "\n" else f"{mean} ± {std}" if std else mean
    text = f"[bold]{spread}[/bold]" if cell.best else spread
    if not difference:
        return text
    colour = {"+": "green", "-": "red"}[difference[0]]
    return f"{text}{between}([{colour}]{difference}[/{colour}])"


def _difference(cell: Difference | None, between: str) -> str:
    text = escape(between.join(filter(None, compared(cell))))
    return f"[bold]{text}[/bold]" if cell and cell.clear else text
