"""Tables in a terminal."""

from __future__ import annotations

from rich import box
from rich.markup import escape
from rich.table import Table as RichTable

from gopro.report.shape import Cell, Line, Table
from gopro.report.words import figure, heading, is_wide, label, notes, pieces


def rich_table(table: Table) -> RichTable:
    """The table for rich to print: best means bold, differences to published figures green or red, notes below.

    Base to new fits 100 columns. What is wider, such as cross-dataset over eleven data sets, has deviation and
    difference below the mean and its titles broken, and fits 120.
    """
    wide = is_wide(table)
    made = RichTable(
        title=escape(heading(table)),
        title_style="bold",
        title_justify="left",
        caption=escape("\n".join((table.lead, *notes(table)))),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 0) if wide else (0, 1),
    )
    for head in table.heads:
        made.add_column(head, overflow="fold")
    for column in table.columns:
        made.add_column(escape("\n".join(pieces(column)) if wide else column), justify="right", no_wrap=True)
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


def _markup(line: Line, cell: Cell, between: str) -> str:
    mean, std, difference = figure(line, cell)
    spread = f"{mean}{between}±{std}" if std and between == "\n" else f"{mean} ± {std}" if std else mean
    text = f"[bold]{spread}[/bold]" if cell.best else spread
    if not difference:
        return text
    colour = {"+": "green", "-": "red"}[difference[0]]
    return f"{text}{between}([{colour}]{difference}[/{colour}])"
