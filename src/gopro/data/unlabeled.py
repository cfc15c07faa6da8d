"""Images without labels, which some methods learn from beside the labelled training images."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from gopro.data.dataset import Dataset, ImageSource
from gopro.data.few_shot import draw_per_class
from gopro.data.folders.find_images import find_images
from gopro.data.hf_datasets import is_saved
from gopro.data.images.image_file import ImageFile
from gopro.data.images.levels import Levels
from gopro.data.load_dataset import find_folder, load_dataset
from gopro.errors import InputError


class UnlabeledImages(NamedTuple):
    """Images without labels, and the names of the classes that they show, if these are known."""

    images: tuple[ImageSource, ...] = ()
    classnames: tuple[str, ...] = ()


def find_unlabeled(
    source: str | None,
    shots: int | None,
    dataset: Dataset,
    given: Dataset,
    seed: int,
    root: Path | None = None,
    levels: Levels | None = None,
) -> UnlabeledImages:
    """Find the images that a run may learn from without labels, none unless `source` or `shots` is given.

    Args:
        source: a folder, whose images are all used, or a data set, whose training images are. None for `dataset`.
        shots: images per class of the data set, as many as there are if it has fewer; None for all of them.
        dataset: the one that is trained on, with all its classes, as images of new ones help too.
        given: its labelled part; these images are left out.
        seed: decides which images of a class are drawn.
        root, levels: as in `load_dataset`.

    Raises:
        InputError: the source is not found or has no images, or `shots` are asked for of a folder.
    """
    if shots == 0 or (source is None and shots is None):
        return UnlabeledImages()
    if source is not None:
        folder = find_folder(source, root)
        if folder is not None and folder.is_dir() and not is_saved(folder):
            if shots is not None:
                raise InputError(
                    f"unlabeled_shots is {shots}, but images in the folder {source} have no classes to count by: leave "
                    "it out, and all of them are used"
                )
            return UnlabeledImages(tuple(ImageFile(path, levels=levels) for path in find_images(folder)))
        dataset = load_dataset(source, root, levels=levels)
    labelled = {sample.image for sample in given.train}
    pool = replace(dataset, train=tuple(sample for sample in dataset.train if sample.image not in labelled))
    if not pool.train:
        raise InputError(f"{dataset.name} has no training images besides those that the run has labels of")
    drawn = draw_per_class(pool, "train", "all" if shots is None else shots, seed)
    return UnlabeledImages(tuple(sample.image for sample in drawn), dataset.classnames)


def join_names(trained: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    """Join the trained names and those that are not among them, upper or lower case aside.

    Example:
        >>> join_names(["owl", "fox"], ["Fox", "crab", "crab"])
        ('owl', 'fox', 'crab')
    """
    known = {name.casefold() for name in trained}
    new = {name.casefold(): name for name in reversed(others) if name.casefold() not in known}
    return (*trained, *reversed(new.values()))


def draw_images(images: Sequence[ImageSource], count: int, seed: int) -> tuple[ImageSource, ...]:
    """Draw `count` images, or all if there are fewer."""
    return tuple(random.Random(f"unlabeled/{seed}").sample(list(images), min(count, len(images))))
