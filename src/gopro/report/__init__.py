"""What an experiment showed: tables of results, and one HTML page."""

from gopro.report.page import write_report
from gopro.report.shape import AVERAGE, Block, Cell, Line, Table
from gopro.report.spread import Spread
from gopro.report.tables import BaseToNewRow, base_to_new, markdown_table, rich_table, tables

__all__ = [
    "AVERAGE",
    "BaseToNewRow",
    "Block",
    "Cell",
    "Line",
    "Spread",
    "Table",
    "base_to_new",
    "markdown_table",
    "rich_table",
    "tables",
    "write_report",
]
