"""`gopro report`: a page and tables from a benchmark's results."""

from __future__ import annotations

from pathlib import Path

from gopro.cli.benchmark import Against
from gopro.cli.console import out


def report_command(folder: Path, *, against: Against = None) -> None:
    """Write a report of a benchmark: report.html, tables.md, tables.tex and plots/.

    Parameters
    ----------
    folder:
        The --output folder of gopro benchmark.
    """
    from gopro.benchmark.report.page import write_report

    page = write_report(folder, against=against)
    out.print_line(f"Report: {page}; tables.md, tables.tex and plots/ are next to it")
