"""Load a data set to check it: all problems are collected, where loading it to train stops at the first."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gopro.data.dataset import Dataset, Sample
from gopro.data.folders.find_images import SIDE_SUFFIXES, files_below, is_image
from gopro.data.images.image_file import ImageFile
from gopro.data.images.levels import Levels, with_levels
from gopro.data.load_dataset import find_folder, joined_names, load_dataset, load_own
from gopro.data.mixed import mix
from gopro.errors import InputError


@dataclass(frozen=True)
class LoadedForCheck:
    """The result of `load_for_check`.

    Attributes:
        dataset: the images that could be labelled; or if nothing can be loaded all images in the folder, without class.
        problems: one line each.
        notes: what is passed over or done with a warning; one line each.
    """

    dataset: Dataset
    problems: tuple[str, ...]
    notes: tuple[str, ...]


def load_for_check(name: str, root: Path | None = None, levels: Levels | None = None) -> LoadedForCheck:
    """Load a data set to check it; nothing is written.

    Args:
        name, root, levels: as for `load_dataset`.

    Raises:
        InputError: there is no such data set, a named one cannot be loaded, or several cannot be joined.
    """
    names = joined_names(name, root)
    if len(names) == 1:
        return _load_one(name, root, levels)
    loaded = [_load_one(each, root, levels) for each in names]
    datasets = [each.dataset for each in loaded]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        dataset = mix(datasets) if all(each.classnames for each in datasets) else _without_classes(name, datasets)
    problems = tuple(problem for each in loaded for problem in each.problems)
    notes = (*(note for each in loaded for note in each.notes), *(str(warning.message) for warning in caught))
    return LoadedForCheck(dataset, problems, notes)


def _load_one(name: str, root: Path | None, levels: Levels | None) -> LoadedForCheck:
    own = find_folder(name, root)
    problems: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if own is None:
            dataset = load_dataset(name, root, levels=levels)
        else:
            try:
                dataset = load_own(own, lambda error: problems.append(str(error)))
            except InputError as error:
                problems.append(str(error))
                dataset = _all_images(own)
            dataset = with_levels(dataset, levels)
        notes = list(dict.fromkeys(str(warning.message) for warning in caught))
        if own is not None and own.is_dir():
            notes += _side_files(own)
    return LoadedForCheck(dataset, tuple(dict.fromkeys(problems)), tuple(notes))


def _without_classes(name: str, datasets: Sequence[Dataset]) -> Dataset:
    """Return all images of data sets of which one could not be loaded."""
    samples = (sample for each in datasets for sample in (*each.train, *each.val, *each.test))
    return Dataset(name, (), (), (), tuple(Sample(sample.image, 0) for sample in samples))


def _all_images(path: Path) -> Dataset:
    """Return a data set without classes, of all images in a folder or beside a file of labels."""
    folder = path if path.is_dir() else path.parent
    images = sorted(file for file in files_below(folder, on_error=lambda error: None) if is_image(file))
    return Dataset(folder.resolve().name, (), (), (), tuple(Sample(ImageFile(file), 0) for file in images))


def _side_files(folder: Path) -> list[str]:
    """Say how many files of notes and labels lie in the folders of images."""
    endings = Counter(
        path.suffix.lower()
        for path in files_below(folder, on_error=lambda error: None)
        if path.name.lower().endswith(SIDE_SUFFIXES) and path.parent != folder
    )
    if not endings:
        return []
    return [f"{folder}: {endings.total()} files beside the images are passed over ({' '.join(sorted(endings))})"]
