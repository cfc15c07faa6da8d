"""A run in words: what it is, what it was trained with and how good it is, from the files in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gopro.methods.registry import parse_method
from gopro.runs.calibration import read_calibration
from gopro.runs.push import evaluations
from gopro.runs.run import COST, HEADS, LEARNED, read_config, read_cost
from gopro.runs.training_images import chooses_by_validation, read_training_images, read_unlabeled_images

LISTED_CLASSES = 10
"""Class names that are listed, at most."""


def list_classes(names: Sequence[str], most: int = LISTED_CLASSES) -> str:
    """Return the number of classes and the first of their names.

    Example:
        >>> list_classes(["ant", "bee", "fly"], most=2)
        '3 classes: ant, bee, ...'
    """
    listed = ", ".join([*names[:most], *(["..."] if len(names) > most else [])])
    return f"{len(names)} {'class' if len(names) == 1 else 'classes'}: {listed}"


def describe_run(folder: Path) -> dict[str, str]:
    """Return what there is to say of a run, by topic. Neither weights nor images are opened.

    Raises:
        InputError: the folder is not a run's, or one of its files is damaged.
    """
    content = read_config(folder)
    config, trained_with = content["config"], content["trained_with"]
    part = "" if config.classes == "all" else f", {config.classes} classes"
    facts = {
        "method": config.method,
        "data": f"{content['data']}{part}",
        "classes": list_classes(content["classnames"]),
        "backbone": content["backbone"]["name"],
        "prompt": content["template"] if trained_with is None else trained_with.template,
    }
    trained = bool(parse_method(config.method).kind.trained_by)
    facts["training"] = "none: the method needs no training"
    if trained:
        digests = read_training_images(folder)
        images = "" if digests is None else f", {len(digests)} images"
        if digests and chooses_by_validation(parse_method(config.method).kind.trained_by, config.select):
            images += " with those to validate on"
        if unlabeled := read_unlabeled_images(folder):
            images += f", {len(unlabeled)} more without labels"
        facts["training"] = f"{config.shots} shots, seed {config.seed}{images}"
    if trained and trained_with is not None and trained_with.recipe is not None:
        facts["recipe"] = f"{trained_with.recipe.in_words()} ({trained_with.task})"
    if (folder / COST).is_file():
        cost = read_cost(folder)
        memory = "" if cost.peak_memory_mib is None else f", {cost.peak_memory_mib:,.0f} MiB"
        facts["cost"] = f"{cost.train_seconds:.0f} s{memory}, {cost.parameters:,} learned parameters"
    if (folder / LEARNED).is_file():
        facts |= _quality(folder)
        heads = len(list((folder / HEADS).glob("*.safetensors")))
        if heads:
            facts["heads"] = "1 first-order head" if heads == 1 else f"{heads} first-order heads"
    else:
        facts["state"] = f"not finished: resume it with gopro train --resume {folder}"
    if "imported" in content:
        origin = content["imported"]
        facts["imported"] = f"from {origin['file']}, a checkpoint of {origin['code']}"
    facts["made with"] = f"gopro {content.get('gopro', 'of an unknown version')}"
    return facts


def _quality(folder: Path) -> dict[str, str]:
    """Return the accuracies and the calibration of a finished run."""
    facts: dict[str, str] = {}
    fitted = read_calibration(folder)
    if fitted is None:
        facts["temperature"] = "none: the run was imported, or an earlier version trained it"
    elif fitted.accuracy is None:
        facts["temperature"] = f"none: {fitted.problem}"
    else:
        facts["validation"] = (
            f"accuracy {fitted.accuracy:.1f} %, zero-shot CLIP's {fitted.zeroshot_accuracy:.1f} % "
            f"({fitted.images} images)"
        )
        facts["temperature"] = f"{fitted.temperature:.2f}, fitted on the validation images"
    tests = [
        f"{row['data']}, {row['classes']} classes: accuracy {row['accuracy']:.2f} % on {row['n']} images"
        for row in evaluations(folder)
    ]
    facts["tests"] = "; ".join(tests) if tests else f"none: type gopro eval {folder}"
    return facts
