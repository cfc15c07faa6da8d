"""The images to test a run on: those of its own split, or all images of another folder over the run's classes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from gopro.data.dataset import ClassHalf, Dataset
from gopro.data.folders.class_folders import recorded_split
from gopro.data.images.levels import with_levels
from gopro.data.load_dataset import absolute_name, find_folder, has_own_name, load_dataset, load_target
from gopro.data.match_classes import match_classes
from gopro.errors import InputError, first_few
from gopro.runs.run import Run
from gopro.runs.training_images import read_training_images

NamesFrom = Literal["run", "data"]
"""Where the class names to choose from come from in a test on another folder."""


@dataclass(frozen=True)
class EvaluationData:
    """The result of `evaluation_data`.

    Attributes:
        dataset: the classes to choose from, and the test images.
        is_own: whether it is the data set that the run was trained on.
        other_data: whether it is to be classified as other data than those; see `Method.for_classes`. Another folder
            is not, as `gopro predict` classifies its images with the run as it is.
        unknown: images that are left out, by their class, which the run does not know.
        absent: classes to choose from of which there is no image.
    """

    dataset: Dataset
    is_own: bool
    other_data: bool
    unknown: Mapping[str, int] = field(default_factory=dict)
    absent: tuple[str, ...] = ()


def evaluation_data(
    run: Run,
    data: str | None = None,
    root: Path | None = None,
    *,
    classes: ClassHalf = "all",
    names: NamesFrom = "run",
) -> EvaluationData:
    """Load the images to test a run on.

    On the data set that it was trained on, they are the test images of its split. Any other folder is tested whole, or
    its test folder if it has one, and nothing is written into it; the classes to choose from are the run's. Data sets
    with a name are tested over their own classes, as the field's protocols do.

    Args:
        data: data set as `load_dataset` takes it; by default the run's own.
        root: folder that contains the benchmark data sets, in place of the config's.
        classes: the half of the classes to choose from.
        names: with `data`, another folder is tested over the classes of its own folders.

    Raises:
        InputError: the data set cannot be loaded; none of a folder's classes is among the run's; a half is asked for of
            classes that are one already.
    """
    root = root or run.config.root
    if data is None:
        return EvaluationData(run.dataset(root).half(classes), is_own=True, other_data=False)
    target, has_name = load_target(data, root, levels=run.config.levels), has_own_name(data)
    same_name = target.name == run.data and has_own_name(run.config.data)  # and not a folder that is called so
    if same_name if has_name else _is_own(run, data, root):
        own = load_dataset(data, root, levels=run.config.levels)
        return EvaluationData(own.half(classes), is_own=True, other_data=False)
    if has_name or names == "data":
        if len(target.classnames) < 2:
            raise InputError(f"{data}: only one class ({', '.join(target.classnames)}), so every answer would be right")
        return EvaluationData(target.half(classes), is_own=False, other_data=True)
    if classes != "all" and run.config.classes != "all":
        raise InputError(
            f"--classes {classes}: the run knows only the {run.config.classes} classes of {run.data}; leave --classes "
            f"out, or add --names data to take half of the classes of {data}"
        )
    matched = match_classes(target, run.method.classnames)
    if not matched.dataset.test:
        raise InputError(
            f"{data}: none of its classes ({first_few(list(target.classnames))}) is one of the run's "
            f"({first_few(list(run.method.classnames))}); rename its folders, or add --names data to test over its own "
            "classes"
        )
    dataset = replace(matched.dataset, template=run.template).half(classes)
    absent = tuple(name for name in matched.absent if name in dataset.classnames)
    return EvaluationData(dataset, False, False, matched.unknown, absent)


def _is_own(run: Run, data: str, root: Path | None) -> bool:
    """Tell whether folders are those that a run was trained on, or one is a copy of it with its split."""
    if run.hub is None and absolute_name(data, root) == absolute_name(run.config.data, run.config.root):
        return True
    folder = find_folder(data, root)
    if folder is None:
        return False
    split, trained = recorded_split(folder), read_training_images(run.folder)
    if split is None or not trained or not set(run.method.classnames) <= set(split.classnames):
        return False
    split = with_levels(split, run.config.levels)
    given = set[str]()
    for sample in (*split.train, *split.val):
        with suppress(InputError):  # an image that was removed
            given.add(sample.image.digest())
    return given.issuperset(trained)
