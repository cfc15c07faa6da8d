"""What an experiment showed: tables of results, and one HTML page."""

from gopro.report.page import SampleCard, write_page
from gopro.report.tables import AVERAGE, BaseToNewRow, Spread, base_to_new, markdown_table, rich_table

__all__ = [
    "AVERAGE",
    "BaseToNewRow",
    "SampleCard",
    "Spread",
    "base_to_new",
    "markdown_table",
    "rich_table",
    "write_page",
]
