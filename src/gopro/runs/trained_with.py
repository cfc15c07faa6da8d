"""A record of what a run was trained with: every setting that the authors' recipe or the data set decided."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, get_args

from gopro.data.dataset import Dataset
from gopro.methods.recipe import Recipe, Task
from gopro.methods.registry import MethodSpec
from gopro.runs.config import TrainConfig


@dataclass(frozen=True)
class TrainedWith:
    """The settings that a training resolved to; `trained_with` in a run's `config.json`.

    Attributes:
        task: the task whose recipe was used; None for a method that learns nothing.
        template: the hand-written prompt in use, the data set's own or the one that the user chose.
        settings: all settings of the method; `template` is None there for the data set's own.
        recipe: optimiser, schedule, batches and crop; None for a method that learns nothing. In a method without steps,
            only its crop had an effect.
    """

    task: Task | None
    template: str
    settings: dict[str, Any]
    recipe: Recipe | None

    @staticmethod
    def of(config: TrainConfig, spec: MethodSpec, authors: Recipe, dataset: Dataset) -> TrainedWith:
        """Return the record of a training on a data set.

        Args:
            spec, authors: the method, with its authors' settings for the training, and their recipe; see
                `MethodSpec.for_training`.
        """
        template = spec.config.template or dataset.template
        if not spec.kind.trained_by:
            return TrainedWith(None, template, asdict(spec.config), None)
        recipe = config.recipe(authors, dataset.crop, spec.recipe_settings)
        return TrainedWith(config.conditions.task, template, asdict(spec.config), recipe)

    def to_json(self) -> dict[str, Any]:
        """Return the record as JSON values."""
        return asdict(self)

    @staticmethod
    def from_json(values: Any) -> TrainedWith:
        """Return the record that `to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is no such record.
            InputError: a field of the recipe is unknown, of another type or out of range.
        """
        task, template, settings, recipe = (values[name] for name in ("task", "template", "settings", "recipe"))
        if task is not None and task not in get_args(Task):
            raise ValueError(f"task {task!r} is unknown")
        if not isinstance(template, str) or not isinstance(settings, dict):
            raise TypeError("template must be text and settings an object")
        return TrainedWith(task, template, settings, None if recipe is None else Recipe(**recipe))
