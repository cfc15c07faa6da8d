"""Earlier results of a sweep's folder are reused only if the sweep would make them again just as they were made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gopro.benchmark.protocols import PlannedRun
from gopro.data.dataset import Dataset
from gopro.data.load_dataset import load_dataset
from gopro.data.unlabeled import find_unlabeled
from gopro.errors import InputError
from gopro.methods.registry import parse_method
from gopro.runs.config import TrainConfig
from gopro.runs.image_lists import digest_training_images
from gopro.runs.made_with import Record, difference, recorded
from gopro.runs.results import Results
from gopro.runs.run import CONFIG, LEARNED, read_config
from gopro.runs.training_images import given_images, read_training_images, read_unlabeled_images


class NotReusable(InputError):
    """A folder holds a run or result that was made with other settings or images."""


def check_reusable(runs: Sequence[PlannedRun], results: Results) -> None:
    """Check the rows and the run folders that a sweep would reuse.

    Rows are checked whether or not the folder of their run still exists. If there are any, the training images are read
    once for each few-shot draw, to compare their content.

    Raises:
        NotReusable: names the first row or run that was made with anything else, and what differs.
    """
    draws = _Draws()
    for run in runs:
        if (run.train.output / CONFIG).is_file():
            _check_folder(run, draws)
        for test in run.tests:
            if (row := results.find(test.key)) is None:
                continue
            name = f"{results.path}: the result of {row['method']} on {row['data']}, {row['classes']} classes,"
            _check_settings(name, row.get("made_with"), {**run.made_with, "test_template": test.template})
            if row.get("test_images") != test.images:
                raise NotReusable(
                    f"{name} was measured on other test images than {test.data} has now (its split was drawn again, or "
                    "images were added, removed or renamed): choose another --output"
                )
            _check_images(name, row.get("training_images"), row.get("unlabeled_images"), run, draws)


def _check_folder(run: PlannedRun, draws: _Draws) -> None:
    config, folder = run.train, run.train.output
    existing: TrainConfig = read_config(folder)["config"]
    folders = [Path(data) for data in (existing.data, config.data)]
    if any(path.is_dir() for path in folders) and folders[0].resolve() != folders[1].resolve():
        raise NotReusable(f"{folder} was run on {existing.data}, not {config.data}: choose another --output")
    if existing.backbone != config.backbone:
        raise NotReusable(
            f"{folder} was run with backbone {existing.backbone}, not {config.backbone}: choose another --output"
        )
    _check_settings(str(folder), recorded(folder), run.made_with)
    if (folder / LEARNED).is_file():  # an interrupted run checks its images itself when it is resumed
        unlabeled = digest_training_images(read_unlabeled_images(folder))
        _check_images(str(folder), digest_training_images(read_training_images(folder)), unlabeled, run, draws)


def _check_settings(name: str, before: Any, now: Record) -> None:
    """Raise NotReusable if `name` was made with other settings than now, or by a version that did not record them."""
    if not isinstance(before, dict):
        raise NotReusable(
            f"{name} was made by an earlier version of gopro, which did not record what it trained with: choose "
            "another --output, or empty this one"
        )
    if (changed := difference(before, now)) is not None:
        raise NotReusable(f"{name} {changed}: choose another --output")


def _check_images(name: str, before: str | None, unlabeled: str | None, run: PlannedRun, draws: _Draws) -> None:
    """Raise NotReusable if the few-shot draw gives other images now, which may be images that were tested on.

    Args:
        before, unlabeled: digests of the images with and without labels that `name` was trained on.
    """
    config = run.train
    if before != draws.digest(config):
        raise NotReusable(
            f"{name} was trained on other images than {config.data} gives now (its split was drawn again, or images "
            "were replaced): choose another --output"
        )
    if unlabeled != draws.digest_unlabeled(run):
        if unlabeled is None:
            raise NotReusable(
                f"{name} was made by an earlier version of gopro, which did not record its images without labels: "
                "choose another --output"
            )
        raise NotReusable(
            f"{name} was trained on other images without labels than {config.unlabeled or config.data} gives now "
            "(images were added, replaced or removed): choose another --output"
        )


class _Draws:
    """The images that data sets give to learn from now; each draw is read once for all methods."""

    def __init__(self) -> None:
        self._digests: dict[tuple[Any, ...], str | None] = {}
        self._unlabeled: dict[tuple[Any, ...], str | None] = {}
        self._loaded: tuple[str, Dataset] | None = None  # the runs on one data set follow each other

    def digest(self, config: TrainConfig) -> str | None:
        """Return one digest for the images that a run is given; None if it learns from none."""
        trained_by = parse_method(config.method).kind.trained_by
        if not trained_by:
            return None
        key = (config.data, config.classes, config.shots, config.seed, config.select, trained_by)
        if key not in self._digests:
            drawn = self._load(config).half(config.classes).few_shot(config.shots, config.seed)
            images = given_images(drawn, trained_by, config.select)
            self._digests[key] = digest_training_images([sample.image.digest() for sample in images])
        return self._digests[key]

    def digest_unlabeled(self, run: PlannedRun) -> str | None:
        """Return one digest for the images without labels that a run is given; None if it learns from none."""
        config, shots = run.train, (run.made_with["recipe"] or {}).get("unlabeled_shots")
        if config.unlabeled is None and not shots:
            return None
        key = (config.data, config.unlabeled, config.classes, config.shots, config.seed, shots)
        if key not in self._unlabeled:
            whole = self._load(config)
            given = whole.half(config.classes).few_shot(config.shots, config.seed)
            found = find_unlabeled(config.unlabeled, shots, whole, given, config.seed, config.root, config.levels)
            self._unlabeled[key] = digest_training_images([image.digest() for image in found.images])
        return self._unlabeled[key]

    def _load(self, config: TrainConfig) -> Dataset:
        if self._loaded is None or self._loaded[0] != config.data:
            self._loaded = config.data, load_dataset(config.data, config.root, levels=config.levels)
        return self._loaded[1]
