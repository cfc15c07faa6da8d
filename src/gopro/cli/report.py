"""`gopro report`: a page and tables from a benchmark's results, or the page of one run."""

from __future__ import annotations

from pathlib import Path

from gopro.cli.benchmark import Against
from gopro.cli.console import out
from gopro.errors import InputError


def report_command(folder: list[Path], *, against: Against = None, output: Path | None = None) -> None:
    """Write a report of a benchmark: report.html, tables.md, tables.tex and plots/. Or evaluate one run and write its
    page, as gopro eval RUN --report does.

    Parameters
    ----------
    folder:
        The --output folder of gopro benchmark or of gopro train. Several of benchmarks, such as those of the jobs of a
        SLURM array, are joined.
    output:
        Folder to write a benchmark's report to. Default: the folder itself; of several, a folder called report beside
        them.
    """
    from gopro.benchmark.report.join import common_folder
    from gopro.benchmark.report.page import write_report
    from gopro.benchmark.runner import RESULTS
    from gopro.runs.run import CONFIG

    first = folder[0]
    if len(folder) == 1 and (first / CONFIG).is_file() and not (first / RESULTS).is_file():
        if against is not None:
            raise InputError(f"--against: {first} is a single run, with no other method to compare")
        if output is not None:
            raise InputError(f"--output: {first} is a single run, whose report is written into its own folder")
        from gopro.cli.evaluate import eval_command

        eval_command(str(first), report=True)
        return
    page = write_report(output or common_folder(folder), joined=folder, against=against)
    out.print_line(f"Report: {page}; tables.md, tables.tex and plots/ are next to it")
