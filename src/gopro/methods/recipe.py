"""The training of a method: in closed form or in steps, and the recipes of its authors for each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Flag
from types import MappingProxyType
from typing import Annotated, Any, Literal
from urllib.parse import quote

from annotated_types import Gt, Le

from gopro.data.dataset import CROP
from gopro.data.few_shot import Shots
from gopro.settings import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, settings

Task = Literal["base-to-new", "transfer", "few-shot"]
"""The later use that a model is trained for: other classes of the same data set; other data sets and styles (the
protocols cross-dataset and domain generalization share their models); or the classes that it is trained on."""

Grid = MappingProxyType[str, tuple[Any, ...]]
"""Values to try of settings of a method or its recipe, by setting; see `Method.grid`."""


class Training(Flag):
    """The ways in which a method learns from the training images.

    Example:
        >>> Training.STEPS in Training.CLOSED_FORM_THEN_STEPS
        True
    """

    NONE = 0
    """Nothing is learned; the training images are not read."""
    STEPS = 1
    """Gradient steps on `Method.losses`."""
    CLOSED_FORM = 2
    """One call of `Method.solve` with all training images."""
    CLOSED_FORM_THEN_STEPS = CLOSED_FORM | STEPS


@settings
class Recipe:
    """The optimiser, schedule and batches that a method is trained with.

    The defaults are those of Dassl, the toolbox that CoOp and its successors train with.
    """

    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: PositiveFloat = 2e-3
    """Peak learning rate."""
    epochs: PositiveInt = 50
    batch: PositiveInt = 4
    """Images per step."""
    warmup: NonNegativeFloat = 1.0
    """Epochs at the start with a constant learning rate of 1e-5."""
    schedule: Literal["epoch", "step"] = "epoch"
    """The cosine after the warm-up: stepped once an epoch, as Dassl does, or at every step; see
    `gopro.training.lr_schedule`."""
    weight_decay: NonNegativeFloat = 5e-4
    momentum: NonNegativeFloat = 0.9
    """Momentum of SGD; AdamW keeps its usual betas."""
    eps: PositiveFloat = 1e-8
    """AdamW's epsilon."""
    drop_last: bool = True
    """Leave out an incomplete last batch, unless it is the only one."""
    crop: Annotated[float, Gt(0), Le(1)] = CROP
    """Smallest share of an image's area that a random view shows."""
    bank: NonNegativeInt = 0
    """Random draws of an image's views that are encoded once: epoch e trains on draw e mod `bank`. 0: new ones in each
    epoch."""
    unlabeled_shots: NonNegativeInt | None = None
    """Images per class to learn from without their labels: training images that are not among the labelled ones, of all
    classes of the data set; or of the one that the run's setting `unlabeled` names, where the default is all of them.
    For methods with `uses_unlabeled`."""

    def in_words(self) -> str:
        """Return the figures that people compare.

        Example:
            >>> Recipe(epochs=1, batch=32, lr=1e-3, optimizer="adamw").in_words()
            '1 epoch, batches of 32, AdamW at 0.001'
        """
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        optimizer = {"sgd": "SGD", "adamw": "AdamW"}[self.optimizer]
        return f"{epochs}, batches of {self.batch}, {optimizer} at {self.lr:g}"


@dataclass(frozen=True)
class Conditions:
    """The properties of a training that authors choose a recipe by.

    Attributes:
        data: the name of the data set, such as `eurosat`.
        shots: training images per class, or all.
    """

    task: Task
    data: str
    shots: Shots


@dataclass(frozen=True, kw_only=True)
class Repository:
    """The repository of a method's authors on GitHub, and the files in it that the recipes are read from.

    Attributes:
        name: owner and name.
        commit: the commit that was read.
        files: the file that each task's recipe comes from. A task without one is not in the repository; it gets the
            recipe for base-to-new, or the only one there is.

    Example:
        >>> Repository(name="owner/name", commit="1234567", files={"few-shot": "train.py"}).url("train.py")
        'https://github.com/owner/name/blob/1234567/train.py'
    """

    name: str
    commit: str
    files: Mapping[Task, str]

    def url(self, path: str) -> str:
        """Return the address of a file at the commit."""
        return f"https://github.com/{self.name}/blob/{self.commit}/{quote(path)}"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A change that the authors of a method make for some trainings.

    Attributes:
        source: path of the file in the authors' repository that says so.
        recipe: changed fields of the recipe.
        settings: changed settings of the method.
        tasks, data, shots: the trainings that it holds for; empty for all.

    Example:
        >>> eurosat = Variant(source="configs/eurosat.yaml", recipe={"epochs": 100}, data=("eurosat",))
        >>> eurosat.holds_for(Conditions("few-shot", "dtd", 16))
        False
    """

    source: str
    recipe: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[Task, ...] = ()
    data: tuple[str, ...] = ()
    shots: tuple[int, ...] = ()

    def holds_for(self, conditions: Conditions) -> bool:
        """Return whether a training under these conditions gets the changes."""
        return (
            (not self.tasks or conditions.task in self.tasks)
            and (not self.data or conditions.data in self.data)
            and (not self.shots or conditions.shots in self.shots)
        )


def vary(recipe: Recipe, variants: Sequence[Variant], conditions: Conditions) -> tuple[Recipe, dict[str, Any]]:
    """Return the recipe and the settings of the method under some conditions. Later variants go over earlier ones.

    Example:
        >>> long = Variant(source="configs/long.yaml", recipe={"epochs": 200}, settings={"tokens": 16})
        >>> recipe, settings = vary(Recipe(epochs=50), [long], Conditions("few-shot", "dtd", 16))
        >>> recipe.epochs, settings
        (200, {'tokens': 16})
    """
    changed: dict[str, Any] = {}
    for variant in variants:
        if variant.holds_for(conditions):
            recipe = replace(recipe, **variant.recipe)
            changed |= variant.settings
    return recipe, changed
