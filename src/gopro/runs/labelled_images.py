"""Labelled images to test any class names on: those of a data set, a folder or a run."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

from gopro.data.dataset import Dataset, Sample
from gopro.data.load_dataset import load_target
from gopro.data.match_classes import match_classes
from gopro.errors import InputError, first_few
from gopro.runs.evaluation_data import evaluation_data
from gopro.runs.run import Run
from gopro.runs.training_images import leave_out_training_images, read_training_images


def labelled_images(
    classnames: Sequence[str], run: Run | None, data: str | Path | Dataset | None = None, root: Path | None = None
) -> tuple[Sample, ...]:
    """Return test images with labels that index `classnames`, without those that the run was trained on.

    Images of other classes are left out, with a warning.

    Args:
        run: the run that is tested, if any.
        data: see `gopro.Classifier.evaluate`.

    Raises:
        InputError: there is neither a run nor data, the data cannot be loaded, or there are no images left.
    """
    dataset = _load(run, data, root)
    samples = dataset.test
    if tuple(classnames) != dataset.classnames:
        matched = match_classes(dataset, classnames)
        samples = matched.dataset.test
        if not samples:
            raise InputError(
                f"{dataset.name}: none of its classes ({first_few(list(dataset.classnames))}) is among those to choose "
                f"from ({first_few(list(classnames))}); use for_classes first"
            )
        if matched.unknown:
            named = first_few([f"{name} ({count})" for name, count in matched.unknown.items()])
            warnings.warn(
                f"{dataset.name}: images of classes that are not to choose from are left out: {named}", stacklevel=3
            )
    if run is None or not run.method.trained_by:
        return samples
    left = leave_out_training_images(samples, read_training_images(run.folder) or [])
    if not left:
        raise InputError(
            f"{run.folder} was trained on all {len(samples)} test images of {dataset.name}: give other data"
        )
    return left


def _load(run: Run | None, data: str | Path | Dataset | None, root: Path | None) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if run is None:
        if data is None:
            raise InputError("no data to evaluate on: give a data set or a folder of labelled images")
        return load_target(str(data), root)
    if data is None:
        return run.dataset(root).half(run.config.classes)
    return evaluation_data(run, str(data), root, names="data").dataset
