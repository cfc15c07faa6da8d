"""Tables in a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Group
from rich.table import Table as RichTable
from rich.text import Text

from gopro.benchmark.report.tables.grid import Grid, GridCell, breakable_parts, grids, named_rows
from gopro.benchmark.report.tables.table import Table


def rich_table(table: Table) -> Group:
    """Render the table and its differences for rich to print, with leads and notes below.

    The best means are bold, differences to published figures green or red, and differences to one method bold if their
    interval excludes 0. Base-to-new fits into 100 characters. A table that is too wide, such as cross-dataset over
    eleven data sets, stacks the parts of its figures and titles and fits into 120.
    """
    return Group(*(_rendered(grid) for grid in grids(table)))


def _rendered(grid: Grid) -> Group:
    wide = grid.is_wide
    table = RichTable(
        title=Text(grid.subtitle or grid.title),
        title_style="bold",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,  # two columns that let a table of differences fit into 80
        pad_edge=False,
        collapse_padding=True,
        padding=(0, 0) if wide else (0, 1),
    )
    for head in grid.heads:
        table.add_column(head, overflow="fold")
    for column in grid.columns:
        title = "\n".join(breakable_parts(column)) if wide else column
        table.add_column(Text(title), justify="right", no_wrap=True)
    for block in grid.blocks:
        for names, row in named_rows(block):
            table.add_row(
                *map(Text, names),
                *(_figure(cell, "\n" if wide else " ") for cell in row.cells),
                style="dim" if row.published else None,
                end_section=row is block[-1],
            )
    # A caption of the table would be wrapped to the table's width.
    return Group(table, "", Text("\n".join((grid.lead, *grid.notes)), style="table.caption"), "")


def _figure(cell: GridCell, separator: str) -> Text:
    text = Text(separator.join(filter(None, (cell.value, cell.detail))), style="bold" if cell.bold else "")
    if cell.change:
        colour = {"+": "green", "−": "red"}.get(cell.change[0], "")
        text = Text.assemble(text, separator, "(", (cell.change, colour), ")")
    return text
