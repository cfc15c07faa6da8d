"""One run of a sweep from beginning to end: trained, or found trained, and tested."""

from __future__ import annotations

import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from gopro.backbone import Backbone, load_backbone
from gopro.data import load_dataset
from gopro.data.dataset import ClassHalf, Dataset, Sample
from gopro.errors import InputError
from gopro.evaluate import EncodedSamples, Evaluation, encode_samples, evaluate, evaluate_pictures
from gopro.fit import Step
from gopro.methods import Method
from gopro.predictions import Predictions
from gopro.protocols import Job, Test
from gopro.results import Row
from gopro.run import CONFIG, LEARNED, Run, load_run, read_cost, slug
from gopro.train import make_fabric, resume, train

BUDGET = 4 * 2**30
"""Bytes of encoded test pictures that a worker keeps for its next runs."""


@dataclass(frozen=True)
class Done:
    """A run is finished; `seconds` are those it took now."""

    seconds: float


@dataclass(frozen=True)
class Failed:
    """A run ended with an error: one line, and the traceback where the fault is not the input's."""

    error: str
    traceback: str | None = None


Message = Row | Done | Failed


class Worker:
    """Does runs one after the other and keeps what they share: the backbone, and the test pictures it has seen."""

    def __init__(self) -> None:
        self._backbone: Backbone | None = None
        self._seen: OrderedDict[tuple[str, str, Path | None, str], EncodedSamples] = OrderedDict()
        self._datasets: dict[tuple[str, Path | None], Dataset] = {}

    def work(
        self, job: Job, tests: Sequence[Test], on_step: Callable[[Step], None] = lambda step: None
    ) -> Iterator[Message]:
        """The rows of the tests asked for, each as soon as it is known, and at the end `Done` or `Failed`."""
        started = time.perf_counter()
        try:
            run = self._trained(job, on_step)
            for test in tests:
                yield self._row(job, run, test)
            yield Done(time.perf_counter() - started)
        except InputError as error:
            yield Failed(str(error))
        except Exception as error:  # one run's fault must not cost the others
            first = str(error).strip().partition("\n")[0]
            yield Failed(f"{type(error).__name__}: {first}", traceback.format_exc())

    def _trained(self, job: Job, on_step: Callable[[Step], None]) -> Run:
        """The run as it lies in its folder, gone on with if it was cut off, or trained now."""
        backbone, folder = self._load(job), job.train.output
        if (folder / LEARNED).is_file():
            return load_run(folder, backbone=backbone)
        if (folder / CONFIG).is_file():
            return resume(folder, backbone=backbone, on_step=on_step)
        return train(job.train, backbone=backbone, on_step=on_step)

    def _load(self, job: Job) -> Backbone:
        if self._backbone is None or self._backbone.name != job.train.backbone:
            self._backbone = None  # before the next one takes its memory
            self._seen.clear()
            self._backbone = load_backbone(job.train.backbone, make_fabric(job.train).device)
        return self._backbone

    def _row(self, job: Job, run: Run, test: Test) -> Row:
        classes: ClassHalf = test.key.classes  # pyright: ignore[reportAssignmentType]
        place = test.data, job.train.root
        if place not in self._datasets:  # without what is not tested on: ImageNet's list takes long and much memory
            self._datasets[place] = replace(load_dataset(*place), train=(), val=())
        part = self._datasets[place].half(classes)
        method = run.method.for_classes(part.classnames)
        if method.frozen_images:
            evaluation = evaluate(method, self._encoded(job, test, method, part.test))
        else:
            evaluation = evaluate_pictures(method, part.test, workers=job.train.workers)
        labels = torch.tensor([sample.label for sample in part.test])
        predictions = Predictions.of(evaluation, labels, test.data, classes, part.classnames)
        predictions.save(run.folder / f"test-{slug(test.key.data)}-{classes}.safetensors")
        return {**asdict(test.key), **summary(evaluation), **asdict(read_cost(run.folder)), "run": job.run}

    def _encoded(self, job: Job, test: Test, method: Method, samples: Sequence[Sample]) -> EncodedSamples:
        """The test pictures as the frozen tower sees them, the same for every method that leaves it so."""
        known = (job.train.backbone, test.data, job.train.root, test.key.classes)
        if known in self._seen:
            self._seen.move_to_end(known)
        else:
            self._seen[known] = encode_samples(method, samples, workers=job.train.workers)
            while len(self._seen) > 1 and sum(map(_bytes, self._seen.values())) > BUDGET:
                self._seen.popitem(last=False)
        return self._seen[known]


def summary(evaluation: Evaluation) -> Row:
    """The figures of an evaluation that a results row holds."""
    return {
        "accuracy": round(evaluation.accuracy, 4),
        "macro_accuracy": round(evaluation.macro_accuracy, 4),
        "n": evaluation.n,
        "seconds": round(evaluation.seconds, 2),
    }


def _bytes(samples: EncodedSamples) -> int:
    encoded = samples.encoded
    return sum(t.numel() * t.element_size() for t in (encoded.embedding, encoded.mean, encoded.std))
