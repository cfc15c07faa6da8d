"""Settings of training runs and benchmarks. The string below a field is its help on the command line.

This module imports neither torch nor NumPy, so that the command line can show its help at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from itertools import count
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from annotated_types import Gt, Le
from pydantic import Strict

from gopro.clip.weights.embedded import default_backbone
from gopro.data.dataset import ClassHalf
from gopro.data.images.levels import check_levels
from gopro.files import slug
from gopro.methods.recipe import Conditions, Recipe, Task
from gopro.settings import (
    AnyPath,
    Ints,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Texts,
    TwoFloats,
    settings,
)

NonFinite = Literal["stop", "skip"]

LoggerName = Literal["tensorboard", "wandb", "mlflow", "csv"]

SAME_RESULTS = "same results"
"""Marks a setting that leaves the results of a run as they are, up to rounding. All others make it another run."""


OUTPUT = Path("runs/NAME-METHOD")
"""Stands for the folder that a run gets by default; NAME is that of its data."""


@settings
class TrainSettings:
    """Settings shared by training runs and benchmarks.

    The method's recipe, which for most methods is that of its authors, holds where epochs, batch, lr, optimizer,
    weight_decay, crop or bank are not given.
    """

    epochs: PositiveInt | None = None
    """Passes over the training images. Default: the recipe's, which gopro methods METHOD shows."""
    batch: PositiveInt | None = None
    """Images per batch, over all devices together. Default: the recipe's."""
    lr: PositiveFloat | None = None
    """Peak learning rate. Default: the recipe's."""
    optimizer: Literal["sgd", "adamw"] | None = None
    """Optimiser. Default: the recipe's."""
    weight_decay: NonNegativeFloat | None = None
    """Weight decay of the optimiser. Default: the recipe's."""
    crop: Annotated[float, Gt(0), Le(1)] | None = None
    """Smallest part of an image's area (0 to 1) that a random crop shows. Default: the data set's own if it has one,
    else the recipe's."""
    levels: TwoFloats | None = None
    """Two values that images with more than 8 bits per sample show as black and white, such as 0 4095 for 12 bits in
    16-bit files, which are nearly black otherwise. The run keeps them for all images that it is used on. Default: 0
    65535."""
    unlabeled: str | None = None
    """Images without labels to learn from too, of these or other classes, such as those to sort later: a folder,
    searched with its subfolders, or a data set, whose training images are used without their labels. Only gopro learns
    from them."""
    bank: NonNegativeInt | None = None
    """Random views per training image to encode once and cache for all epochs and runs; 0 draws new views in every
    epoch. Default: the recipe's."""
    accumulate: PositiveInt = 1
    """Batches per optimiser step: their gradients are averaged, which has the effect of a larger batch without its
    memory. Losses that compare images, such as gopro's con, compare those of one batch."""
    select: Literal["last", "val"] = "last"
    """Save the model of the last epoch, or of the epoch with the best accuracy on the validation images."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the image and text towers; losses and norms are computed in fp32."""
    device: Annotated[Literal["auto", "cpu", "cuda"], SAME_RESULTS] = "auto"
    """Device to run on; auto uses a GPU if there is one."""
    workers: Annotated[NonNegativeInt, SAME_RESULTS] = 2
    """Processes that read and augment images; with 0 the training process does it."""
    logger: Annotated[LoggerName | None, SAME_RESULTS] = None
    """Log losses for this program too, beside log.csv: TensorBoard, Weights & Biases, MLflow or Lightning's CSV files.
    The first three need the extra of that name: pip install '.[tensorboard]'."""
    root: Annotated[AnyPath | None, SAME_RESULTS] = None
    """Folder that contains the benchmark data sets, in CoOp's layout (docs/datasets.md)."""
    deterministic: Annotated[bool, SAME_RESULTS] = False
    """Make repeated runs on one machine bit-identical, which is slower on CUDA. Runs on a CPU always are."""
    non_finite: Annotated[NonFinite, SAME_RESULTS] = "stop"
    """Stop the run when a loss or gradient is not finite, or skip the step and count it."""

    def recipe(
        self, authors: Recipe, dataset_crop: float | None = None, chosen: Mapping[str, Any] = MappingProxyType({})
    ) -> Recipe:
        """Return the authors' recipe, changed by the settings that are given.

        With other epochs the warm-up is shortened where it would leave no epoch after it or, in a schedule by steps,
        take more than a tenth of them.

        Args:
            dataset_crop: the data set's own crop, which goes over the authors'.
            chosen: fields that stand in the brackets of the method, which go over all else.

        Example:
            >>> TrainSettings(epochs=5).recipe(Recipe(epochs=50, warmup=1, schedule="step")).warmup
            0.5
        """
        changes: dict[str, Any] = {} if dataset_crop is None else {"crop": dataset_crop}
        names = ("epochs", "batch", "lr", "optimizer", "weight_decay", "crop", "bank")
        changes |= {name: value for name in names if (value := getattr(self, name)) is not None}
        changes |= chosen
        if (epochs := changes.get("epochs")) is not None and "warmup" not in chosen:
            by_epoch = chosen.get("schedule", authors.schedule) == "epoch"
            changes["warmup"] = min(authors.warmup, epochs - 1 if by_epoch else epochs / 10)
        return replace(authors, **changes)

    def __post_init__(self) -> None:
        check_levels(self.levels)


@settings
class _MainSettings:
    """The settings of a training run that most users give. As the last base of `TrainConfig` it leads in --help."""

    data: str
    """Folder with one subfolder of images per class, a CSV with the columns path and label, a data set that gopro data
    list names, or hf:NAME of the Hugging Face Hub. Or several with the same classes in different styles, joined by +:
    photo+drawing. Required, unless a run is resumed."""
    output: AnyPath = OUTPUT
    """New folder for the run, counted up if there is one: runs/my-images-gopro, runs/my-images-gopro-2, ..."""
    method: str = "gopro"
    """Method, optionally with settings of its own and of its recipe: gopro[con=0,lr=0.01]. See gopro methods."""
    backbone: str | None = None
    """CLIP model: photo, emoji, ARCHITECTURE:TAG, ARCHITECTURE:FILE or openai:FILE. Default: emoji for the emoji data
    sets, photo for all other data."""
    shots: NonNegativeInt | Literal["all"] = 16  # 0 in the benchmark runs of methods that learn from no images
    """Training images per class, or all. A class with fewer gives all that it has, with a warning. Each of several
    joined data sets gives that many."""
    seed: int = 1
    """Seed of the training images, their order, their views and the initial weights."""
    classes: ClassHalf = "all"
    """Classes to train on: all, or the first half (base) or the second half (new)."""


@settings
class TrainConfig(TrainSettings, _MainSettings):
    """Settings of one training run.

    Example:
        >>> config = TrainConfig(data="emoji-activities", output="runs/mine", method="coop", shots=4)
        >>> TrainConfig.from_json(config.to_json()) == config
        True
    """

    task: Task | None = None
    """Task whose recipe is used, as the authors of most methods train differently for each: other classes of the same
    data set (base-to-new), other data sets or styles (transfer), or the trained classes (few-shot). Default:
    base-to-new for half of the classes, transfer for all classes of imagenet, else few-shot."""
    unlabeled_classes: Texts | None = None
    """Class names that the images of --unlabeled may show, besides those of the training images and of the data set
    that they come from."""
    profile: Annotated[bool, SAME_RESULTS] = False
    """Profile steps 3 to 5 and write trace.json into the run's folder; open it at ui.perfetto.dev."""

    def __post_init__(self) -> None:
        """Fill in backbone and output, so that a run records which ones it has, whatever the defaults are later."""
        super().__post_init__()
        if self.backbone is None:
            object.__setattr__(self, "backbone", default_backbone(self.data))
        if self.output == OUTPUT:
            object.__setattr__(self, "output", new_folder(OUTPUT.parent, f"{_name(self.data)}-{self.method}"))

    @property
    def conditions(self) -> Conditions:
        """The properties of the training that authors choose a recipe by."""
        default: Task = "transfer" if self.data == "imagenet" else "few-shot"
        if self.classes != "all":
            default = "base-to-new"
        return Conditions(self.task or default, self.data, self.shots)

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
class _MainSweepSettings:
    """The settings of a benchmark that most users give. As a base after `TrainSettings` it leads in --help."""

    output: AnyPath
    """Folder for results.jsonl and the runs. Runs whose results it already contains are not repeated."""
    suite: Literal["emoji", "photo", "paper"] | None = None
    """Defaults for the options that are not given: those of the embedded benchmark (emoji), of photographs below --root
    (photo), or of the paper. Default: emoji if no data set is named."""
    methods: Texts | None = None
    """Methods, optionally with settings of their own and of their recipes: gopro[con=0] gopro[lr=0.01,epochs=10]."""
    backbones: Texts | None = None
    """CLIP models: photo, emoji, ARCHITECTURE:TAG, ARCHITECTURE:FILE or openai:FILE. Default: emoji for runs that are
    trained on the emoji data sets, photo for all others."""
    shots: Annotated[tuple[PositiveInt | Literal["all"], ...], Strict(False)] | None = None
    """Training images per class, one or more numbers, or all: 1 4 16 all."""
    seeds: Ints | None = None
    """Seeds, one or more numbers: 1 2 3."""


@settings
class SweepConfig(TrainSettings, _MainSweepSettings):
    """Settings shared by the benchmarks of all protocols. The suite provides those that are not given."""

    jobs: PositiveInt = 1
    """Number of runs to train at once on this machine, each in its own process."""
    ray: str | None = None
    """Address of a Ray cluster to run on, such as auto or 10.0.0.1:6379. Its machines must share the output folder."""

    def shared(self) -> dict[str, Any]:
        """Return the settings that all training runs of the benchmark have in common."""
        return {field.name: getattr(self, field.name) for field in fields(TrainSettings)}


@settings
class _DataSets:
    """The data sets of a benchmark within data sets."""

    data: Texts | None = None
    """Data sets, as gopro train takes them."""


@settings
class BenchmarkConfig(SweepConfig, _DataSets):
    """Settings of a benchmark within data sets: methods are trained and tested on each."""


@settings
class _Budget:
    """The size of a choice of settings. As the last base of `TuneConfig` it leads in --help."""

    budget: PositiveInt = 12
    """Settings to try for each method: the authors' recipe and this many less one from the grid of its class."""


@settings
class TuneConfig(BenchmarkConfig, _Budget):
    """Settings of a choice of settings: each method is trained with several and measured on held-out images."""


@settings
class _SourceAndTargets:
    """The data sets of a benchmark across data sets."""

    source: str | None = None
    """Data set to train on, with all its classes. Several domains are joined by +: photo+drawing."""
    targets: Texts | None = None
    """Data sets to test on."""


@settings
class TransferConfig(SweepConfig, _SourceAndTargets):
    """Settings of a benchmark across data sets: methods are trained on one and tested on others."""


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


def new_folder(parent: Path, name: str) -> Path:
    """Return a folder that is not there yet, or is empty: `NAME`, or `NAME-2`, `NAME-3` and so on.

    Example:
        >>> new_folder(Path("no-such-folder"), "my images-gopro[lr=0.01]").as_posix()
        'no-such-folder/my_images-gopro_lr_0.01'
    """
    for number in count(1):
        folder = parent / (slug(name) + (f"-{number}" if number > 1 else ""))
        if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
            return folder
    raise AssertionError


def _name(data: str) -> str:
    """Return the name of a data set for a folder: that of its own folder or file, or those of several joined ones."""
    from gopro.data.load_dataset import joined_names  # not above: the command line shows its help without NumPy
    from gopro.data.mixed import JOIN

    path = Path(data).expanduser()
    if path.is_file():
        return path.stem
    if path.is_dir():
        return path.resolve().name
    names = joined_names(data)
    return data if len(names) == 1 else JOIN.join(map(_name, names))
