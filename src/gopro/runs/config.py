"""Settings of training runs and benchmarks. The string below a field is its help on the command line.

This module imports neither torch nor NumPy, so that the command line can show its help at once.
"""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Gt, Le

from gopro.data.dataset import ClassHalf
from gopro.methods.recipe import Recipe
from gopro.settings import AnyPath, Ints, NonNegativeInt, PositiveFloat, PositiveInt, PositiveInts, Texts, settings

NonFinite = Literal["stop", "skip"]

SAME_RESULTS = "same results"
"""Marks a setting that leaves the results of a run as they are, up to rounding. All others make it another run."""


@settings
class TrainSettings:
    """Settings shared by training runs and benchmarks.

    The method's own recipe holds where epochs, batch, lr or optimizer are not given.
    """

    root: Annotated[AnyPath | None, SAME_RESULTS] = None
    """Folder that holds the benchmarks' folders, in CoOp's layout."""
    epochs: PositiveInt | None = None
    """Passes over the training images."""
    batch: PositiveInt | None = None
    """Images per step, on all devices together."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are averaged for one step of the optimiser: larger batches in the memory of one. Losses
    that compare images with one another, such as gopro's con, do so within a batch."""
    lr: PositiveFloat | None = None
    """Peak learning rate."""
    optimizer: Literal["sgd", "adamw"] | None = None
    """Optimiser."""
    non_finite: Annotated[NonFinite, SAME_RESULTS] = "stop"
    """At a step whose loss or gradient is not finite, stop the run, or skip the step and count it."""
    deterministic: Annotated[bool, SAME_RESULTS] = False
    """Give the same bits each time on the same machine, with slower operations on CUDA. The CPU always does."""
    select: Literal["last", "val"] = "last"
    """Epoch whose model is kept: the last, or the best on the validation images."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the image and text towers; losses and norms stay in fp32."""
    device: Annotated[Literal["auto", "cpu", "cuda"], SAME_RESULTS] = "auto"
    """Device to run on."""
    workers: Annotated[NonNegativeInt, SAME_RESULTS] = 2
    """Processes that make the views."""
    crop: Annotated[float, Gt(0), Le(1)] | None = None
    """Smallest share of an image's area that a random view shows. Default: the data set's own."""
    bank: NonNegativeInt = 0
    """Random views per training image that are encoded once and kept for all epochs and runs; 0 draws new ones in
    each epoch."""

    def recipe(self, own: Recipe) -> Recipe:
        """Return the method's own recipe, changed by the settings that are given.

        Example:
            >>> TrainSettings(epochs=5).recipe(Recipe(epochs=50, warmup=1)).warmup
            0.5
        """
        names = ("epochs", "batch", "lr", "optimizer")
        changes = {name: value for name in names if (value := getattr(self, name)) is not None}
        if self.epochs is not None:  # the warm-up takes a tenth of a short run at most
            changes["warmup"] = min(own.warmup, self.epochs / 10)
        return replace(own, **changes)


@settings
class TrainConfig(TrainSettings):
    """Settings of one training run.

    Example:
        >>> config = TrainConfig(data="emoji-activities", output="runs/mine", method="coop", shots=4)
        >>> TrainConfig.from_json(config.to_json()) == config
        True
    """

    data: str
    """Data set: emoji-animals, caltech101, ..., or the path of a folder of class-named folders."""
    output: AnyPath
    """Folder to write the run to."""
    method: str = "gopro"
    """Method, with settings if wanted: gopro[con=0]."""
    backbone: str = "emoji"
    """CLIP model: emoji, ARCHITECTURE:TAG, ARCHITECTURE:FILE or openai:FILE."""
    shots: NonNegativeInt = 16  # 0 in the benchmark runs of methods that learn from no images
    """Training images per class."""
    seed: int = 1
    """Seed of the training images, their order, their views and the initial weights."""
    classes: ClassHalf = "all"
    """Classes to train on: all, or the base or new half."""
    profile: Annotated[bool, SAME_RESULTS] = False
    """Trace the third to fifth step into trace.json in the run's folder, for ui.perfetto.dev."""

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @staticmethod
    def from_json(values: dict[str, Any]) -> TrainConfig:
        """Return the settings that `to_json` gave.

        Raises:
            InputError: a value is missing, unknown, of another type or out of range.
        """
        return TrainConfig(**values)


@settings
class SweepConfig(TrainSettings):
    """Settings shared by the benchmarks of all protocols. The suite provides those that are not given."""

    output: AnyPath
    """Folder for results.jsonl and the runs; results that it holds are not computed again."""
    suite: Literal["emoji", "paper"] | None = None
    """Settings to use where none are given: the embedded benchmark's or the paper's. Default: emoji, if no data are
    named."""
    methods: Texts | None = None
    """Methods, with settings if wanted: gopro[con=0]."""
    backbones: Texts | None = None
    """CLIP models: emoji, ARCHITECTURE:TAG, ARCHITECTURE:FILE or openai:FILE."""
    shots: PositiveInts | None = None
    """Training images per class; each number is run."""
    seeds: Ints | None = None
    """Seeds."""
    jobs: PositiveInt = 1
    """Runs at the same time on this machine, a process each."""
    ray: str | None = None
    """Address of a Ray cluster to run on, such as auto or 10.0.0.1:6379; its machines share the output folder."""

    def run(
        self, data: str, method: str, backbone: str, shots: int, seed: int, classes: ClassHalf, output: Path
    ) -> TrainConfig:
        """Return the config of one training run of the benchmark."""
        shared = {field.name: getattr(self, field.name) for field in fields(TrainSettings)}
        run = {"data": data, "method": method, "backbone": backbone, "shots": shots, "seed": seed, "classes": classes}
        return TrainConfig(output=output, **run, **shared)


@settings
class BenchmarkConfig(SweepConfig):
    """Settings of a benchmark within data sets: methods are trained and tested on each."""

    data: Texts | None = None
    """Data sets: emoji-animals, caltech101, ..., or the paths of folders of class-named folders."""


@settings
class TransferConfig(SweepConfig):
    """Settings of a benchmark across data sets: methods are trained on one and tested on others."""

    source: str | None = None
    """Data set to train on, all its classes."""
    targets: Texts | None = None
    """Data sets to test on."""


def settings_that_change_results() -> tuple[str, ...]:
    """Return the names of the settings without the mark `SAME_RESULTS`.

    Two runs with the same `RunKey` are the same run only if these settings are equal too.

    Example:
        >>> names = settings_that_change_results()
        >>> "accumulate" in names, "workers" in names
        (True, False)
    """
    hints = get_type_hints(TrainSettings, include_extras=True)
    return tuple(
        name for name, hint in hints.items() if not (get_origin(hint) is Annotated and SAME_RESULTS in get_args(hint))
    )
