"""`gopro report`: a page and tables from a benchmark's results."""

from __future__ import annotations

from pathlib import Path

from gopro.cli.benchmark import Against
from gopro.cli.console import out


def report_command(folder: Path, *, against: Against = None) -> None:
    """Write report.html, tables.md, tables.tex and plots/ from the results in a folder.

    Parameters
    ----------
    folder:
        The --output of gopro benchmark.
    """
    from gopro.benchmark.report.page import write_report

    out.print_line(f"{write_report(folder, against=against)}, with tables.md, tables.tex and plots/ next to it")
