"""One run of a sweep from beginning to end: train it, unless that is done, and test it."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from gopro.benchmark.held_out import HeldOut
from gopro.benchmark.predictions import Predictions
from gopro.benchmark.protocols import PlannedRun, PlannedTest
from gopro.clip.backbone import Backbone, load_backbone
from gopro.data.dataset import ClassHalf, Dataset
from gopro.data.load_dataset import load_dataset, load_target
from gopro.data.match_classes import match_classes
from gopro.errors import InputError
from gopro.files import slug
from gopro.inference.evaluate import Evaluation, evaluate_images
from gopro.runs.config import TrainConfig
from gopro.runs.image_lists import digest_test_list, digest_training_images
from gopro.runs.load_run import load_run
from gopro.runs.results import ResultRow
from gopro.runs.run import CONFIG, LEARNED, Run, read_cost
from gopro.runs.training_images import read_training_images, read_unlabeled_images
from gopro.training.devices import make_fabric
from gopro.training.progress import Step
from gopro.training.resume_state import RESUME
from gopro.training.train import resume, train

Task = tuple[PlannedRun, Sequence[PlannedTest]]
"""A run and those of its tests that have no result yet."""


@dataclass(frozen=True)
class RunStarted:
    """Message that a worker has begun a run."""


@dataclass(frozen=True)
class RunFinished:
    """Message that a run and all its tests are done; they took `seconds` in this call."""

    seconds: float


@dataclass(frozen=True)
class RunFailed:
    """Message that a run ended with an error: one line, with a traceback unless the user's input is at fault."""

    error: str
    traceback: str | None = None


Message = ResultRow | RunStarted | RunFinished | RunFailed


class Worker:
    """Does runs one after the other, and keeps the backbone and the data sets that they share.

    Args:
        backbone: a backbone for the runs that have one of its name, in place of loading it.
    """

    def __init__(self, backbone: Backbone | None = None) -> None:
        self._backbone = backbone
        self._datasets: dict[tuple[str, Path | None, bool, HeldOut | None], Dataset] = {}

    def work(
        self,
        run: PlannedRun,
        tests: Sequence[PlannedTest],
        on_step: Callable[[Step], None] = lambda step: None,
        on_fill: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[Message]:
        """Yield `RunStarted`, one result row per test as soon as it is known, then `RunFinished` or `RunFailed`."""
        started = time.perf_counter()
        yield RunStarted()
        try:
            trained = self._load_or_train(run.train, on_step, on_fill)
            for test in tests:
                yield self._evaluate(run, trained, test)
            yield RunFinished(time.perf_counter() - started)
        except InputError as error:
            yield RunFailed(str(error))
        except Exception as error:  # a bug in one run must not cost the others
            first_line = str(error).strip().partition("\n")[0]
            yield RunFailed(f"{type(error).__name__}: {first_line}", traceback.format_exc())

    def _load_or_train(
        self, config: TrainConfig, on_step: Callable[[Step], None], on_fill: Callable[[int, int], None]
    ) -> Run:
        """Return the run from its folder if it is finished; else resume it if it was interrupted, or train it."""
        backbone, folder = self._load_backbone(config), config.output
        if (folder / LEARNED).is_file() and not (folder / RESUME).exists():
            return load_run(folder, backbone=backbone)
        if (folder / CONFIG).is_file():
            return resume(folder, devices=1, backbone=backbone, on_step=on_step, on_fill=on_fill)
        return train(config, devices=1, backbone=backbone, on_step=on_step, on_fill=on_fill)

    def _load_backbone(self, config: TrainConfig) -> Backbone:
        assert config.backbone is not None  # TrainConfig fills it in
        if self._backbone is None or self._backbone.name != config.backbone:
            self._backbone = None  # free its memory before the next one is loaded
            self._backbone = load_backbone(config.backbone, make_fabric(config).device)
        return self._backbone

    def _evaluate(self, run: PlannedRun, trained: Run, test: PlannedTest) -> ResultRow:
        """Test the run on one data set, write its predictions and return its row of results."""
        classes: ClassHalf = test.key.classes  # pyright: ignore[reportAssignmentType]
        held_out, is_target = test.held_out, test.key.data != test.key.source
        if held_out is not None:
            is_target = held_out.style != "original"
        source = test.data, run.train.root, is_target, held_out
        if source not in self._datasets:
            load = load_target if is_target and held_out is None else load_dataset
            dataset = load(test.data, run.train.root, levels=run.train.levels)
            # Keep the test images alone: the list of ImageNet's 1.3 million training images takes 0.8 GB.
            self._datasets[source] = held_out.of(dataset) if held_out else replace(dataset, train=(), val=())
        part = self._datasets[source].half(classes)
        if test.classnames is not None:
            part = match_classes(part, test.classnames).dataset
        method = trained.method.for_classes(part.classnames, part.template, other_data=is_target)
        evaluation = evaluate_images(method, part.test, workers=run.train.workers)
        labels = torch.tensor([sample.label for sample in part.test])
        predictions = Predictions.of(evaluation, labels, test.data, classes, part.classnames)
        predictions.save(trained.folder / f"test-{slug(test.key.data)}-{classes}.safetensors")
        cost = asdict(read_cost(trained.folder))
        figures = evaluation_figures(evaluation)
        record = {
            "made_with": {**run.made_with, "test_template": part.template},
            "training_images": digest_training_images(read_training_images(trained.folder)),
            "unlabeled_images": digest_training_images(read_unlabeled_images(trained.folder)),
            "test_images": digest_test_list(part),
        }
        return {**asdict(test.key), **figures, **cost, "run": run.name, **record}


def evaluation_figures(evaluation: Evaluation) -> ResultRow:
    """Return the rounded figures of an evaluation that a row of results.jsonl holds; accuracies are in percent."""
    return {
        "accuracy": round(evaluation.accuracy, 4),
        "macro_accuracy": round(evaluation.macro_accuracy, 4),
        "n": evaluation.n,
        "class_count": len(evaluation.per_class),
        "seconds": round(evaluation.seconds, 2),
    }
