"""Tables of results."""

from gopro.report.rows import COLUMNS, BaseToNewRow, base_to_new, best, blocks, markdown_table, notes, rich_table
from gopro.report.shape import AVERAGE
from gopro.report.spread import Spread

__all__ = [
    "AVERAGE",
    "COLUMNS",
    "BaseToNewRow",
    "Spread",
    "base_to_new",
    "best",
    "blocks",
    "markdown_table",
    "notes",
    "rich_table",
]
