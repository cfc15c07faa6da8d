"""`gopro report`: a page and tables from a benchmark's results, or a page on one run."""

from __future__ import annotations

from pathlib import Path

from gopro.cli.benchmark import Against
from gopro.cli.console import out
from gopro.errors import InputError


def report_command(folder: Path, *, against: Against = None) -> None:
    """Write a report of a benchmark: report.html, tables.md, tables.tex and plots/. Or evaluate one run and write its
    report.html, with the images that it got wrong.

    Parameters
    ----------
    folder:
        The --output folder of gopro benchmark, or that of gopro train.
    """
    from gopro.benchmark.report.page import write_report
    from gopro.benchmark.runner import RESULTS
    from gopro.runs.run import CONFIG

    if (folder / CONFIG).is_file() and not (folder / RESULTS).is_file():
        if against is not None:
            raise InputError(f"--against: {folder} is a single run, with no other method to compare")
        from gopro.cli.evaluate import eval_command

        eval_command(str(folder), report=True)
        return
    page = write_report(folder, against=against)
    out.print_line(f"Report: {page}; tables.md, tables.tex and plots/ are next to it")
