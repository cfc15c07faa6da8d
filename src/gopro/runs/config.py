"""What a run is told: dataclasses whose field docstrings are the command line's help."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

from gopro.data.dataset import ClassHalf
from gopro.methods.recipe import Recipe
from gopro.settings import AnyPath, Ints, NonNegativeInt, PositiveFloat, PositiveInt, PositiveInts, Texts, settings

NonFinite = Literal["stop", "skip"]


@settings
class TrainSettings:
    """What training runs and benchmarks share. Where epochs, batch, lr or optimizer are not given, the method's own
    recipe holds."""

    root: AnyPath | None = None
    """Directory that holds the benchmarks' folders in CoOp's layout."""
    epochs: PositiveInt | None = None
    """Passes over the training images."""
    batch: PositiveInt | None = None
    """Images a step, on all devices together."""
    accumulate: PositiveInt = 1
    """Batches whose gradients are averaged for one step of the optimiser: as larger batches, in the memory of one.
    Losses that compare images with one another, as gopro's con, do so within a batch."""
    lr: PositiveFloat | None = None
    """Learning rate at its highest."""
    optimizer: Literal["sgd", "adamw"] | None = None
    """Optimiser."""
    non_finite: NonFinite = "stop"
    """What a step whose loss or gradient is not finite does: stop the run, or be skipped and counted."""
    deterministic: bool = False
    """The same bits each time on the same machine: on CUDA operations that take longer. The CPU's always are."""
    select: Literal["last", "val"] = "last"
    """The model to keep: of the last epoch, or of the epoch that is best on the validation images."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the towers; losses and norms stay in fp32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to compute."""
    workers: NonNegativeInt = 2
    """Processes that make the views."""
    crop: float | None = None
    """Least share of an image's area that a random view shows; the data set's own if not given."""
    bank: NonNegativeInt = 0
    """Random views of each training image that are encoded once and kept for all epochs and runs; 0 draws new ones
    each epoch."""

    def recipe(self, own: Recipe) -> Recipe:
        """Return the method's own recipe with these settings in place of its values."""
        given: dict[str, Any] = {
            name: value for name in ("epochs", "batch", "lr", "optimizer") if (value := getattr(self, name)) is not None
        }
        if "epochs" in given:  # a short run is not all warm-up
            given["warmup"] = min(own.warmup, given["epochs"] / 10)
        return replace(own, **given)


@settings
class TrainConfig(TrainSettings):
    """One training run."""

    data: str
    """Data set: emoji-animals, caltech101, ..., or the path of a folder of class-named folders."""
    output: AnyPath
    """Folder that the run is written to."""
    method: str = "gopro"
    """Method, with settings if wanted: gopro[con=0]."""
    backbone: str = "emoji"
    """CLIP to build on: emoji, ARCHITECTURE:TAG, ARCHITECTURE:FILE or openai:FILE."""
    shots: NonNegativeInt = 16
    """Training images a class."""
    seed: int = 1
    """Decides the training images, their order, their views and the start."""
    classes: ClassHalf = "all"
    """Classes to train on: all, or the base or new half."""
    profile: bool = False
    """Trace the third to fifth step into trace.json in the run's folder, for ui.perfetto.dev."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(self).items()}

    @staticmethod
    def from_json(values: dict[str, Any]) -> TrainConfig:
        """Read what `to_json` wrote.

        Raises:
            InputError: a value is missing, unknown, of another type or out of range.
        """
        return TrainConfig(**values)


@settings
class SweepConfig(TrainSettings):
    """What the sweeps of all protocols share. What is not given comes from the suite."""

    output: AnyPath
    """Folder for results.jsonl and the runs; what is already in it is not run again."""
    suite: Literal["emoji", "paper"] | None = None
    """Settings where none are given: the embedded benchmark's (which hold where no data are named), or the paper's."""
    methods: Texts | None = None
    """Methods, with settings if wanted: gopro[con=0]."""
    backbones: Texts | None = None
    """CLIPs to build on: emoji, ARCHITECTURE:TAG, ARCHITECTURE:FILE or openai:FILE."""
    shots: PositiveInts | None = None
    """Training images a class; each number is run."""
    seeds: Ints | None = None
    """Seeds."""
    jobs: PositiveInt = 1
    """Runs at once on this machine, a process each."""
    ray: str | None = None
    """Address of a Ray cluster to run on, such as auto or 10.0.0.1:6379; its machines share the output folder."""

    def run(
        self, data: str, method: str, backbone: str, shots: int, seed: int, classes: ClassHalf, output: Path
    ) -> TrainConfig:
        """One training run of the sweep."""
        shared = {name: getattr(self, name) for name in TrainSettings.__dataclass_fields__}
        return TrainConfig(
            data=data,
            method=method,
            backbone=backbone,
            shots=shots,
            seed=seed,
            classes=classes,
            output=output,
            **shared,
        )


@settings
class BenchmarkConfig(SweepConfig):
    """A sweep within data sets, each trained and tested on its own."""

    data: Texts | None = None
    """Data sets: emoji-animals, caltech101, ..., or the paths of folders of class-named folders."""


@settings
class TransferConfig(SweepConfig):
    """A sweep from one data set to others."""

    source: str | None = None
    """Data set to train on, all its classes."""
    targets: Texts | None = None
    """Data sets to test on as they are."""
