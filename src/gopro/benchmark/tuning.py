"""Choose settings of methods on data that nobody reports on, from as many and by the same images for all."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np

from gopro.benchmark.protocols import PlannedRun, tuning
from gopro.benchmark.report.tables.mean_std import harmonic_mean
from gopro.benchmark.runner import SweepResult, sweep
from gopro.benchmark.suites import SUITES, Suite
from gopro.clip.weights.embedded import default_backbone
from gopro.errors import InputError
from gopro.files import write_json
from gopro.methods.recipe import Conditions
from gopro.methods.registry import MethodSpec, check_backbone, parse_method
from gopro.runs.config import TrainSettings, TuneConfig
from gopro.runs.results import KEY

TUNED = "tuned.json"
SHOTS, SEEDS = (4,), (11,)
"""Where the config has none. 11 is no seed of a suite, so that no draw that settings are chosen on is reported."""


@dataclass(frozen=True)
class Trial:
    """Accuracy of a method with some settings on held-out images, in percent, averaged over data sets and seeds.

    Attributes:
        method: with the settings, as `parse_method` reads it.
        hm: harmonic mean of the accuracies on base and new classes.
        styles: mean accuracy on base classes in the other styles.
        score: mean of both, which the settings are chosen by.
    """

    method: str
    hm: float
    styles: float
    score: float


@dataclass(frozen=True)
class Tuned:
    """The settings that were tried for a method, the authors' recipe first, without those whose runs failed."""

    method: str
    trials: tuple[Trial, ...]

    @property
    def recipe(self) -> Trial | None:
        """The trial of the authors' recipe; None if it failed."""
        return next((trial for trial in self.trials if trial.method == self.method), None)

    @property
    def chosen(self) -> Trial:
        """The trial with the highest score, the first of equals."""
        return max(self.trials, key=lambda trial: trial.score)


@dataclass(frozen=True)
class TuningPlan:
    """The settings to try for each method, and the runs that do it.

    Attributes:
        config: with what the suite provides filled in, and all settings as methods.
    """

    config: TuneConfig
    tried: dict[str, list[str]]
    runs: list[PlannedRun]


def plan_tuning(config: TuneConfig) -> TuningPlan:
    """Plan the runs that choose the settings of each method. Methods that learn nothing are left out.

    Raises:
        InputError: no data set or method is left, a method has too few settings to try, or the config asks for
            something that does not exist.
    """
    suite = SUITES[config.suite or "emoji"] if config.suite or config.data is None else Suite()
    data = config.data or suite.tuning
    methods = [name for name in config.methods or suite.methods if parse_method(name).kind.trained_by]
    if not data:
        raise InputError(f"suite {config.suite} has no data set to choose settings on: name one with --data")
    if not methods:
        raise InputError("these methods learn nothing, so they have no settings to choose: name others")
    for backbone in config.backbones or suite.backbones or dict.fromkeys(map(default_backbone, data)):
        check_backbone(methods, backbone)
    tried = {method: settings_to_try(method, config.budget) for method in methods}
    every = tuple(dict.fromkeys(itertools.chain.from_iterable(tried.values())))
    full = replace(config, data=data, methods=every, shots=config.shots or SHOTS, seeds=config.seeds or SEEDS)
    return TuningPlan(full, tried, tuning(full))


def tune(plan: TuningPlan, **sweep_options: Any) -> tuple[list[Tuned], SweepResult]:
    """Do the runs that are missing, choose the settings of each method and write them to `tuned.json`.

    Args:
        sweep_options: keyword arguments of `sweep`.

    Raises:
        InputError: all runs of a method failed, or what `sweep` raises.
    """
    outcome = sweep(plan.runs, plan.config, **sweep_options)
    trials = _trials(plan.runs, outcome)
    tuned: list[Tuned] = []
    for method, tried in plan.tried.items():
        finished = tuple(trials[settings] for settings in tried if settings in trials)
        if not finished:
            raise InputError(f"{method}: no run has succeeded, see {plan.config.output}/failures.jsonl")
        tuned.append(Tuned(method, finished))
    _write(plan.config, tuned)
    return tuned, outcome


def settings_to_try(method: str, budget: int) -> list[str]:
    """Return a method with `budget` settings of its own: the authors' recipe, then combinations of `Method.grid`.

    They are drawn from all combinations by a generator that the method's name seeds, so a smaller budget has the first
    of a larger one. Settings that `method` itself has in brackets are kept.

    Raises:
        InputError: the grid has fewer combinations.

    Example:
        >>> settings_to_try("coop", 3)
        ['coop', 'coop[lr=0.0005,epochs=50]', 'coop[lr=0.05,epochs=50]']
    """
    spec = parse_method(method)
    own = {*spec.chosen, *spec.recipe_settings}
    grid = {name: values for name, values in spec.kind.grid.items() if name not in own}
    combinations = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    texts = [_with_settings(method, settings) for settings in combinations if settings]
    others = [text for text in texts if _resolved(parse_method(text)) != _resolved(spec)]
    if not others:
        raise InputError(f"{method} has no settings to try: name some in the grid of its class (docs/tuning.md)")
    if len(others) + 1 < budget:
        raise InputError(
            f"{method} has {len(others) + 1} settings to try, fewer than the {budget} of the budget: name more values "
            "in the grid of its class (docs/tuning.md), or give all methods a smaller --budget"
        )
    random.Random(spec.name).shuffle(others)
    return [method, *others[: budget - 1]]


def _with_settings(method: str, settings: dict[str, Any]) -> str:
    """Add settings to a method, in its brackets."""
    name, _, own = method.strip().removesuffix("]").partition("[")
    added = [f"{key}={_text(value)}" for key, value in settings.items()]
    return f"{name}[{','.join([own, *added] if own else added)}]"


def _text(value: Any) -> str:
    """Write a value as it stands in brackets."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float():
            return repr(value).removesuffix(".0")
        case _:
            return str(value)


def _resolved(spec: MethodSpec) -> tuple[Any, ...]:
    """Return what a method is trained with on data that its authors have no recipe of its own for."""
    trained, authors = spec.for_training(Conditions("base-to-new", "", 0))
    return trained.config, TrainSettings().recipe(authors, chosen=spec.recipe_settings)


def _trials(runs: Sequence[PlannedRun], outcome: SweepResult) -> dict[str, Trial]:
    """Return the trial of each method with settings whose runs have all succeeded."""
    accuracy = {tuple(row[name] for name in KEY): row["accuracy"] for row in outcome.rows}
    measured: dict[str, list[list[float | None]]] = {}
    for run in runs:
        keys = [tuple(getattr(test.key, name) for name in KEY) for test in run.tests]
        measured.setdefault(run.train.method, []).append([accuracy.get(key) for key in keys])
    return {method: trial for method, accuracies in measured.items() if (trial := _trial(method, accuracies))}


def _trial(method: str, accuracies: Sequence[Sequence[float | None]]) -> Trial | None:
    """Average a method's runs, whose accuracies are in the order of `protocols.tuning`; None if one is missing."""
    hms, styles = [], []
    for of_run in accuracies:
        known = [value for value in of_run if value is not None]
        if len(known) < len(of_run):
            return None
        base, new, *others = known
        hms.append(harmonic_mean(np.array(base), np.array(new)).item())
        styles.append(fmean(others))
    hm, style = fmean(hms), fmean(styles)
    return Trial(method, round(hm, 4), round(style, 4), round((hm + style) / 2, 4))


def _write(config: TuneConfig, tuned: Sequence[Tuned]) -> None:
    """Write the choices into `tuned.json`; those of other methods, made by earlier calls, stay."""
    path = config.output / TUNED
    try:
        content = json.loads(path.read_bytes()) if path.exists() else {}
        if not isinstance(content, dict):
            raise TypeError("no object")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read ({error}): remove it, and run the same command again") from error
    shared = {"data": config.data, "shots": config.shots, "seeds": config.seeds, "budget": config.budget}
    for method in tuned:
        trials = [asdict(trial) for trial in method.trials]
        content[method.method] = {"chosen": method.chosen.method, **shared, "trials": trials}
    write_json(path, content)
