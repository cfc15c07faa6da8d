"""One run of a sweep from beginning to end: trained, or found trained, and tested."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from gopro.benchmark.predictions import Predictions
from gopro.benchmark.protocols import Job, Test
from gopro.clip.backbone import Backbone, load_backbone
from gopro.data.dataset import ClassHalf, Dataset
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.files import slug
from gopro.inference.evaluate import Evaluation, evaluate_images
from gopro.runs.results import ResultRow
from gopro.runs.run import CONFIG, LEARNED, Run, load_run, read_cost
from gopro.training.devices import make_fabric
from gopro.training.loop import Step
from gopro.training.resume_state import RESUME
from gopro.training.train import resume, train


@dataclass(frozen=True)
class Done:
    """A run is finished; `seconds` are those it took now."""

    seconds: float


@dataclass(frozen=True)
class Failed:
    """A run ended with an error: one line, and the traceback where the fault is not the input's."""

    error: str
    traceback: str | None = None


Message = ResultRow | Done | Failed


class Worker:
    """Does runs one after the other and keeps what they share: the backbone and the data sets."""

    def __init__(self) -> None:
        self._backbone: Backbone | None = None
        self._datasets: dict[tuple[str, Path | None], Dataset] = {}

    def work(
        self,
        job: Job,
        tests: Sequence[Test],
        on_step: Callable[[Step], None] = lambda step: None,
        on_fill: Callable[[int, int], None] = lambda done, total: None,
    ) -> Iterator[Message]:
        """The rows of the tests asked for, each as soon as it is known, and at the end `Done` or `Failed`."""
        started = time.perf_counter()
        try:
            run = self._trained(job, on_step, on_fill)
            for test in tests:
                yield self._row(job, run, test)
            yield Done(time.perf_counter() - started)
        except InputError as error:
            yield Failed(str(error))
        except Exception as error:  # one run's fault must not cost the others
            first = str(error).strip().partition("\n")[0]
            yield Failed(f"{type(error).__name__}: {first}", traceback.format_exc())

    def _trained(self, job: Job, on_step: Callable[[Step], None], on_fill: Callable[[int, int], None]) -> Run:
        """The run as it lies in its folder, gone on with if it was cut off, or trained now."""
        backbone, folder = self._load(job), job.train.output
        if (folder / LEARNED).is_file() and not (folder / RESUME).exists():
            return load_run(folder, backbone=backbone)
        if (folder / CONFIG).is_file():
            return resume(folder, devices=1, backbone=backbone, on_step=on_step, on_fill=on_fill)
        return train(job.train, devices=1, backbone=backbone, on_step=on_step, on_fill=on_fill)

    def _load(self, job: Job) -> Backbone:
        if self._backbone is None or self._backbone.name != job.train.backbone:
            self._backbone = None  # before the next one takes its memory
            self._backbone = load_backbone(job.train.backbone, make_fabric(job.train).device)
        return self._backbone

    def _row(self, job: Job, run: Run, test: Test) -> ResultRow:
        classes: ClassHalf = test.key.classes  # pyright: ignore[reportAssignmentType]
        place = test.data, job.train.root
        if place not in self._datasets:  # without what is not tested on: ImageNet's list takes long and much memory
            self._datasets[place] = replace(load_dataset(*place), train=(), val=())
        part = self._datasets[place].half(classes)
        method = run.method.for_classes(part.classnames)
        evaluation = evaluate_images(method, part.test, workers=job.train.workers)
        labels = torch.tensor([sample.label for sample in part.test])
        predictions = Predictions.of(evaluation, labels, test.data, classes, part.classnames)
        predictions.save(run.folder / f"test-{slug(test.key.data)}-{classes}.safetensors")
        return {**asdict(test.key), **summary(evaluation), **asdict(read_cost(run.folder)), "run": job.run}


def summary(evaluation: Evaluation) -> ResultRow:
    """The figures of an evaluation that a results row holds."""
    return {
        "accuracy": round(evaluation.accuracy, 4),
        "macro_accuracy": round(evaluation.macro_accuracy, 4),
        "n": evaluation.n,
        "seconds": round(evaluation.seconds, 2),
    }
