"""`gopro tune`: choose the settings of methods on held-out images, as many for each."""

from __future__ import annotations

import shlex
import sys
from functools import partial
from typing import TYPE_CHECKING, Annotated

from gopro.cli.backbone_line import print_backbone
from gopro.cli.benchmark import print_event
from gopro.cli.console import err, out, steps
from gopro.cli.parameters import ConfigFile, Flat
from gopro.runs.config import TuneConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from gopro.benchmark.tuning import Trial, Tuned


def tune_command(config: Annotated[TuneConfig, Flat], *, config_file: ConfigFile = None) -> None:
    """Choose the settings of methods, with the same number of trials for each.

    Methods are trained on the base classes and compared on images held out of training: base and new classes, and base
    classes in other styles, made from the same images. No test image is opened. If neither --data nor --suite is given,
    it runs on emoji-objects.
    """
    from gopro.benchmark.tuning import TUNED, plan_tuning, tune

    plan = plan_tuning(config)
    for backbone in sorted({test.key.backbone for run in plan.runs for test in run.tests}):
        print_backbone(backbone, "--backbones")
    with steps() as (on_step, on_fill):
        tuned, outcome = tune(
            plan,
            command="gopro " + shlex.join(sys.argv[1:]),
            on_event=partial(print_event, "started" if config.ray is None else "finished"),
            on_step=on_step,
            on_fill=on_fill,
        )
    out.print(_table(tuned))
    data = " and ".join(plan.config.data or ())
    out.print_line(f"HM of base and new classes, and accuracy on base classes in other styles, on {data}.")
    if outcome.failures:
        err.print_line(f"{len(outcome.failures)} runs failed and were not chosen, see {config.output}/failures.jsonl")
    out.print_line(f"All trials: {config.output / TUNED}")
    chosen = " ".join(shlex.quote(method.chosen.method) for method in tuned)
    out.print_line(f"To report them on other data: gopro benchmark base-to-new --methods {chosen} --output runs/tuned")


def _table(tuned: Sequence[Tuned]) -> Table:
    """Return the recipe of each method, then the settings that were chosen if they are others."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("method", no_wrap=True)
    table.add_column("settings", overflow="fold")
    for column in ("HM", "styles", "mean"):
        table.add_column(column, justify="right", no_wrap=True)
    for method in tuned:
        recipe, chosen = method.recipe, method.chosen
        if recipe is not None:
            table.add_row(method.method, "recipe" + (", chosen" if recipe is chosen else ""), *_figures(recipe))
        if recipe is not chosen:
            name = "" if recipe else method.method
            table.add_row(name, chosen.method.partition("[")[2].removesuffix("]"), *_figures(chosen), style="bold")
    return table


def _figures(trial: Trial) -> list[str]:
    return [f"{value:.2f}" for value in (trial.hm, trial.styles, trial.score)]
