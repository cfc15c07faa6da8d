"""What an experiment showed: tables of results; and one HTML page, of `gopro.report.page`, which loads matplotlib."""

from gopro.report.latex import latex
from gopro.report.markdown import markdown
from gopro.report.paired import reference
from gopro.report.shape import AVERAGE, Block, Cell, Difference, Differences, Line, Table
from gopro.report.spread import Spread
from gopro.report.tables import tables
from gopro.report.terminal import rich_differences, rich_table
from gopro.report.write import write_tables

__all__ = [
    "AVERAGE",
    "Block",
    "Cell",
    "Difference",
    "Differences",
    "Line",
    "Spread",
    "Table",
    "latex",
    "markdown",
    "reference",
    "rich_differences",
    "rich_table",
    "tables",
    "write_tables",
]
