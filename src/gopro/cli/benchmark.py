"""`gopro benchmark`: many runs, and tables of what they achieved."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from gopro.cli.backbone_line import print_backbone
from gopro.cli.console import duration, err, out, steps
from gopro.cli.parameters import DEFAULTS, ConfigFile, Flat
from gopro.data.few_shot import shots_in_words
from gopro.runs.config import BenchmarkConfig, SweepConfig, TransferConfig

if TYPE_CHECKING:
    from gopro.benchmark.runner import SweepEvent

benchmark_app = App(
    name="benchmark", help="Train and compare methods by a standard protocol.", default_parameter=DEFAULTS
)

Against = Annotated[
    str | None, Parameter(help="Method to compare the others with, as written in --methods. Default: gopro if present.")
]


@benchmark_app.command(name="base-to-new")
def base_to_new_command(
    config: Annotated[BenchmarkConfig, Flat], *, against: Against = None, config_file: ConfigFile = None
) -> None:
    """Train on the base classes, test on base and new classes.

    If neither --data nor --suite is given, it runs on the embedded benchmark.
    """
    run_protocol("base-to-new", config, against)


@benchmark_app.command(name="cross-dataset")
def cross_dataset_command(
    config: Annotated[TransferConfig, Flat], *, against: Against = None, config_file: ConfigFile = None
) -> None:
    """Train on all classes of one data set, test on others.

    If neither --source nor --suite is given, it runs on the embedded benchmark.
    """
    run_protocol("cross-dataset", config, against)


@benchmark_app.command(name="domain-generalization")
def domain_generalization_command(
    config: Annotated[TransferConfig, Flat], *, against: Against = None, config_file: ConfigFile = None
) -> None:
    """Train on all classes of one data set, test on the same classes in other styles.

    If neither --source nor --suite is given, it runs on the embedded benchmark.
    """
    run_protocol("domain-generalization", config, against)


@benchmark_app.command(name="few-shot")
def few_shot_command(
    config: Annotated[BenchmarkConfig, Flat], *, against: Against = None, config_file: ConfigFile = None
) -> None:
    """Train on 1, 2, 4, 8 and 16 images per class, test on all classes.

    If neither --data nor --suite is given, it runs on the embedded benchmark.
    """
    run_protocol("few-shot", config, against)


def run_protocol(
    protocol: str, config: SweepConfig, against: str | None = None, *, suggest_report: bool = True
) -> None:
    """Run a protocol and print its tables. Exits with code 1 if runs failed."""
    from gopro.benchmark.protocols import PROTOCOLS
    from gopro.benchmark.report.tables.bootstrap import reference
    from gopro.benchmark.report.tables.protocol_tables import tables
    from gopro.benchmark.report.tables.terminal import rich_table
    from gopro.benchmark.runner import sweep
    from gopro.inference.chance import chance_warnings

    runs = PROTOCOLS[protocol](config)
    against = reference((run.train.method for run in runs), against)
    option = "--backbones" if suggest_report else "gopro benchmark with --backbones"
    for backbone in sorted({test.key.backbone for run in runs for test in run.tests}):
        print_backbone(backbone, option)
    with steps() as (on_step, on_fill):
        outcome = sweep(
            runs,
            config,
            command="gopro " + shlex.join(sys.argv[1:]),
            # A run on a cluster is reported when it has finished: clusters do not tell when a run starts.
            on_event=partial(print_event, "started" if config.ray is None else "finished"),
            on_step=on_step,
            on_fill=on_fill,
        )
    for table in tables(outcome.rows, against):
        out.print(rich_table(table))
    for warning in chance_warnings(outcome.rows, option):
        err.print_line(f"warning: {warning}")
    out.print_line(f"{len(outcome.rows)} evaluations in {config.output}/results.jsonl")
    if outcome.failures:
        failed = "1 run" if len(outcome.failures) == 1 else f"{len(outcome.failures)} runs"
        err.print_line(f"{failed} failed, see {config.output}/failures.jsonl; run the same command to try again", "red")
        sys.exit(1)
    if suggest_report:
        out.print_line(f"Next: gopro report {config.output}")


def print_event(reported: str, event: SweepEvent) -> None:
    """Print a line for an event of a sweep; of runs that succeed, when they have `started` or `finished`."""
    runs = "run" if event.total == 1 else "runs"
    if event.run is None:
        done = f", {event.already_done} already done" if event.already_done else ""
        err.print_line(f"{event.total} {runs} to do{done}")
        return
    train = event.run.train
    run = f"{train.method} on {train.data}"
    if train.shots:
        run += f" ({shots_in_words(train.shots)}, seed {train.seed})"
    if event.kind == reported:
        left = "" if event.seconds_left is None else f", {duration(event.seconds_left)} left"
        err.print_line(f"{event.ended} of {event.total} {runs} done{left}; {reported} {run}")
    elif event.kind == "failed":
        err.print_line(f"failed {run}: {event.error or ''}", "red")
