"""`gopro benchmark`, `report` and `demo`: many runs, and what they showed."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.markup import escape

from gopro.benchmark.protocols import PROTOCOLS
from gopro.benchmark.report.bootstrap import reference
from gopro.benchmark.report.tables import tables
from gopro.benchmark.report.terminal import rich_differences, rich_table
from gopro.benchmark.runner import SweepEvent, sweep
from gopro.cli import demo_config as demonstration
from gopro.cli.console import DEFAULTS, ConfigFile, Flat, err, out, steps
from gopro.runs.config import BenchmarkConfig, SweepConfig, TransferConfig

benchmark = App(
    name="benchmark", help="Train and evaluate methods by the field's protocols.", default_parameter=DEFAULTS
)

Against = Annotated[
    str | None, Parameter(help="Method that the others are compared with, as it was asked for; gopro if there.")
]


@benchmark.command(name="base-to-new")
def base_to_new_command(
    config: Annotated[BenchmarkConfig, Flat], *, against: Against = None, config_file: ConfigFile = None
) -> None:
    """Train on the base classes, test on base and new classes.

    Without --data and --suite it runs on the embedded benchmark.
    """
    _benchmark("base-to-new", config, against)


@benchmark.command(name="cross-dataset")
def cross_dataset_command(
    config: Annotated[TransferConfig, Flat], *, against: Against = None, config_file: ConfigFile = None
) -> None:
    """Train on all classes of one data set, test on others.

    Without --source and --suite it runs on the embedded benchmark.
    """
    _benchmark("cross-dataset", config, against)


@benchmark.command(name="domain-generalization")
def domain_generalization_command(
    config: Annotated[TransferConfig, Flat], *, against: Against = None, config_file: ConfigFile = None
) -> None:
    """Train on all classes of one data set, test on the same things in other styles.

    Without --source and --suite it runs on the embedded benchmark.
    """
    _benchmark("domain-generalization", config, against)


@benchmark.command(name="few-shot")
def few_shot_command(
    config: Annotated[BenchmarkConfig, Flat], *, against: Against = None, config_file: ConfigFile = None
) -> None:
    """Train on 1, 2, 4, 8 and 16 images of every class, test on all classes.

    Without --data and --suite it runs on the embedded benchmark.
    """
    _benchmark("few-shot", config, against)


def report_command(folder: Path, *, against: Against = None) -> None:
    """Write report.html, tables.md, tables.tex and plots/ from the results in a folder.

    Parameters
    ----------
    folder:
        The --output of gopro benchmark.
    """
    from gopro.benchmark.report.page import write_report  # with matplotlib, which takes half a second

    page = write_report(folder, against=against)
    out.print(f"{escape(str(page))}, with tables.md, tables.tex and plots/ beside it", highlight=False, soft_wrap=True)


def demo_command(*, output: Path = Path("runs/demo")) -> None:
    """Base-to-new on the embedded benchmark, with a report.

    Parameters
    ----------
    output:
        Folder for the results, the runs and report.html.
    """
    from gopro.benchmark.report.page import write_report

    config = replace(demonstration.CONFIG, output=output)
    out.print(demonstration.INTRO, highlight=False)
    _benchmark("base-to-new", config, then_report=False)
    steps = demonstration.next_steps(config)
    page = write_report(output, title=demonstration.TITLE, next_steps=steps)
    out.print(f"\nReport with images: {page}\n", highlight=False, soft_wrap=True)
    for step in steps:
        out.print(escape(step.replace("`", "")), highlight=False, soft_wrap=True)


def _benchmark(protocol: str, config: SweepConfig, against: str | None = None, *, then_report: bool = True) -> None:
    """Runs a protocol, shows its tables, and exits with code 1 where runs failed."""
    runs = PROTOCOLS[protocol](config)
    against = reference((run.train.method for run in runs), against)
    with steps() as (on_step, on_fill):
        shown = "started" if config.ray is None else "finished"  # a cluster does not tell when a run begins
        command = "gopro " + shlex.join(sys.argv[1:])
        on_event = partial(_say, shown)
        outcome = sweep(runs, config, command=command, on_event=on_event, on_step=on_step, on_fill=on_fill)
    for table in tables(outcome.rows, against):
        out.print(rich_table(table))
        if table.differences is not None:
            out.print(rich_differences(table.differences))
    folder = escape(str(config.output))
    out.print(f"{len(outcome.rows)} evaluations in {folder}/results.jsonl", highlight=False, soft_wrap=True)
    if outcome.failures:
        count = len(outcome.failures)
        err.print(
            f"{count} run{'s' if count > 1 else ''} failed, see {folder}/failures.jsonl; the same command tries again",
            style="red",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(1)
    if then_report:
        out.print(f"Next: gopro report {folder}", highlight=False, soft_wrap=True)


def _say(shown: str, event: SweepEvent) -> None:
    """One line for what a sweep says of itself; of runs that go well, where they have `started` or are `finished`."""
    left = "" if event.seconds_left is None else f", {_duration(event.seconds_left)} to go"
    if event.run is None:
        there = f"; {event.already_done} are there already" if event.already_done else ""
        err.print(f"{event.total} runs to do{there}", highlight=False)
        return
    run = event.run
    about = f"{escape(run.train.method)} on {escape(run.train.data)}"
    if run.train.shots:
        about += f", {run.train.shots} shots, seed {run.train.seed}"
    if event.kind == shown:
        verb = "begins" if shown == "started" else "is done"
        err.print(f"{about} {verb} ({event.ended} of {event.total} runs done{left})", highlight=False, soft_wrap=True)
    elif event.kind == "failed":
        err.print(f"{about} failed: {escape(event.error or '')}", style="red", highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    """Roughly how long, for a person."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (36 * 3600, 3600, "h")):
        if seconds < limit:
            return f"about {max(1, round(seconds / size))} {unit}"
    return f"about {seconds / 86400:.0f} days"
