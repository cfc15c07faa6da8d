"""The content digests of the images that a run was trained on, so that they are not mistaken for test images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from gopro.data.dataset import Dataset, ImageSource, Sample
from gopro.errors import InputError, one_line
from gopro.files import write_json
from gopro.methods.recipe import Training

TRAINING_IMAGES = "training_images.json"


def given_images(dataset: Dataset, trained_by: Training, select: str) -> tuple[Sample, ...]:
    """Return the images that a run is given: its training images, and validation images if it chooses by them.

    Args:
        dataset: with the training and validation images of the few-shot draw.
        trained_by: `Method.trained_by`; a method that is solved in closed form may choose its settings.
        select: `TrainConfig.select`.
    """
    if not trained_by:
        return ()
    return (*dataset.train, *dataset.val) if chooses_by_validation(trained_by, select) else dataset.train


def chooses_by_validation(trained_by: Training, select: str) -> bool:
    """Tell whether a run is given the validation images too; the arguments are those of `given_images`."""
    return select == "val" or Training.CLOSED_FORM in trained_by


def write_training_images(folder: Path, samples: Sequence[Sample], unlabeled: Sequence[ImageSource] = ()) -> None:
    """Write the digests of a run's training images into its folder, in the order of the samples.

    Args:
        unlabeled: the images that it learns from without labels.

    Raises:
        InputError: an image cannot be read, or the file cannot be written.
    """
    content = {"digests": [sample.image.digest() for sample in samples]}
    if unlabeled:
        content["unlabeled"] = [image.digest() for image in unlabeled]
    write_json(folder / TRAINING_IMAGES, content)


def read_training_images(folder: Path) -> list[str] | None:
    """Return the digests of a run's training images; None for an imported run or one of an earlier version.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    return _read_digests(folder, "digests") if (folder / TRAINING_IMAGES).exists() else None


def read_unlabeled_images(folder: Path) -> list[str]:
    """Return the digests of the images that a run learned from without labels.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    return _read_digests(folder, "unlabeled") if (folder / TRAINING_IMAGES).exists() else []


def _read_digests(folder: Path, key: str) -> list[str]:
    path = folder / TRAINING_IMAGES
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        digests = content.get(key, []) if key == "unlabeled" else content[key]
        if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
            raise TypeError("digests must be a list of text")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{path} is not a list of training images ({type(error).__name__}: {one_line(error)}): put it back, or "
            "train again into another folder"
        ) from error
    return digests


def leave_out_training_images(samples: Sequence[Sample], digests: Sequence[str]) -> tuple[Sample, ...]:
    """Return the samples whose content has none of these digests.

    Raises:
        InputError: an image cannot be read.
    """
    trained = frozenset(digests)
    return tuple(sample for sample in samples if sample.image.digest() not in trained)
