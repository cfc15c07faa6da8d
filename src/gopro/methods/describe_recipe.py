"""Recipes in words: what a method is trained with for a task, and what changes for some data sets and shots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from gopro.methods.recipe import Conditions, Recipe, Task, Training, Variant, vary
from gopro.methods.registry import MethodSpec

MAIN = ("epochs", "batch", "optimizer", "lr")
"""Fields of `Recipe.in_words`."""


@dataclass(frozen=True)
class RecipeLine:
    """The recipe for all trainings of a task, or a change to it for some of them.

    Attributes:
        where: the data sets and shots that it holds for; empty for all.
        recipe: fields of the recipe, such as `50 epochs, batches of 32`.
        settings: settings of the method, such as `depth=3, tokens=2`.
        files: paths in the authors' repository that say so.
    """

    where: str
    recipe: str
    settings: str
    files: tuple[str, ...]


def describe_recipe(spec: MethodSpec, task: Task) -> list[RecipeLine]:
    """Return what a method is trained with for a task: first in general, then what changes for some trainings.

    If two changes hold for a training, the later one counts. Settings that the user chose are left out, as no recipe
    changes them.

    Example:
        >>> from gopro.methods.registry import parse_method
        >>> general, imagenet = describe_recipe(parse_method("coop"), "base-to-new")
        >>> general.recipe, general.settings
        ('200 epochs, batches of 32, SGD at 0.002', 'tokens=null')
        >>> imagenet.where, imagenet.recipe
        ('imagenet', '50 epochs')
    """
    kind = spec.kind
    variants = [variant for variant in kind.variants if not variant.tasks or task in variant.tasks]
    general = [variant for variant in variants if not variant.data and not variant.shots]
    recipe, changed = vary(kind.recipe, general, Conditions(task, "", 0))
    recipe = replace(recipe, **spec.recipe_settings)
    files = [kind.repository.files[task]] if kind.repository and task in kind.repository.files else []
    first = RecipeLine(
        "",
        _recipe_in_words(recipe, steps=Training.STEPS in kind.trained_by),
        _settings_in_words(spec, _shown_settings(spec) | changed),
        _unique(files + [variant.source for variant in general]),
    )
    return [first, *_special_lines(spec, [variant for variant in variants if variant not in general])]


def dassl_in_words() -> str:
    """Describe the fields that recipes in words leave out, at their values of Dassl.

    Example:
        >>> dassl_in_words().split(", ")[2:4]
        ['warm-up of 1 epoch at 1e-5', 'cosine per epoch']
    """
    recipe = Recipe()
    names = ("weight_decay", "warmup", "schedule", "drop_last", "crop")
    return ", ".join(
        [f"momentum {recipe.momentum:g}", *(field_in_words(name, getattr(recipe, name)) for name in names)]
    )


def _recipe_in_words(recipe: Recipe, steps: bool) -> str:
    """Describe a recipe; without steps, only its crops. Fields beside `MAIN` that are as Dassl's are left out."""
    others = [field.name for field in fields(recipe) if field.name not in MAIN] if steps else ["crop"]
    dassl = Recipe()
    named = [name for name in others if getattr(recipe, name) != getattr(dassl, name)]
    words = [recipe.in_words()] if steps else []
    return ", ".join(words + [field_in_words(name, getattr(recipe, name)) for name in named])


def _special_lines(spec: MethodSpec, variants: list[Variant]) -> list[RecipeLine]:
    """Describe variants for some data sets or shots: one line for all data sets with the same changes."""
    merged: dict[tuple[str, tuple[int, ...]], tuple[dict[str, Any], dict[str, Any], list[str]]] = {}
    for variant in variants:
        for data in variant.data or ("",):
            recipe, settings, files = merged.setdefault((data, variant.shots), ({}, {}, []))
            if Training.STEPS in spec.kind.trained_by:
                recipe |= {key: value for key, value in variant.recipe.items() if key not in spec.recipe_settings}
            settings |= variant.settings
            files.append(variant.source)
    data_sets: dict[tuple[tuple[int, ...], str, str, tuple[str, ...]], list[str]] = {}
    for (data, shots), (recipe, settings, files) in merged.items():
        words = ", ".join(field_in_words(name, value) for name, value in recipe.items())
        line = shots, words, _settings_in_words(spec, settings), _unique(files)
        data_sets.setdefault(line, []).append(data)
    return [
        RecipeLine(", ".join(filter(None, [*data, _shots_in_words(shots)])), recipe, settings, files)
        for (shots, recipe, settings, files), data in data_sets.items()
        if recipe or settings
    ]


def _shown_settings(spec: MethodSpec) -> dict[str, Any]:
    """Return the settings that tell trainings apart: numbers, and what a variant changes; no prompt."""
    changed = {name for variant in spec.kind.variants for name in variant.settings}
    values = {field.name: getattr(spec.config, field.name) for field in fields(spec.config)}
    return {
        name: value
        for name, value in values.items()
        if name != "template" and (name in changed or (isinstance(value, int | float) and not isinstance(value, bool)))
    }


def _settings_in_words(spec: MethodSpec, settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name}={'null' if value is None else format(value, 'g') if isinstance(value, float) else value}"
        for name, value in settings.items()
        if name not in spec.chosen
    )


def _shots_in_words(shots: tuple[int, ...]) -> str:
    if not shots:
        return ""
    *more, last = map(str, shots)
    return f"{', '.join(more)} or {last} shots" if more else f"{last} shot{'s' if shots[0] > 1 else ''}"


def field_in_words(name: str, value: Any) -> str:
    """Describe a field of a recipe.

    Example:
        >>> field_in_words("warmup", 0.25)
        'warm-up of 0.25 epochs at 1e-5'
    """
    match name:
        case "optimizer":
            return value
        case "lr":
            return f"learning rate {value:g}"
        case "epochs":
            return f"{value} epoch{'s' if value > 1 else ''}"
        case "batch":
            return f"batches of {value}"
        case "warmup":
            return f"warm-up of {value:g} epoch{'s' if value != 1 else ''} at 1e-5" if value else "no warm-up"
        case "schedule":
            return f"cosine per {value}"
        case "drop_last":
            return "incomplete batches left out" if value else "incomplete batches kept"
        case "bank":
            return f"{value} draw{'s' if value > 1 else ''} of views for all epochs" if value else "new views per epoch"
        case "unlabeled_shots":
            return f"{value} images per class without labels"
        case "crop":
            return f"crops from {value:g} of the area"
        case _:
            return f"{name.replace('_', ' ')} {value:g}"


def _unique(files: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(files))
