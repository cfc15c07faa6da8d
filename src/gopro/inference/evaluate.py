"""Accuracy of a method on labelled images."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gopro.clip.backbone import Encoded
from gopro.clip.features.encode_views import Features, ViewRequest, encode_views
from gopro.clip.features.store import FeatureStore
from gopro.clip.similarity import similarity
from gopro.data.dataset import Sample
from gopro.data.images.loader import eval_batches
from gopro.errors import InputError
from gopro.inference.calibration import CalibrationError
from gopro.inference.confusion import ConfusionMatrix
from gopro.methods.base import Method


@dataclass(frozen=True)
class EncodedSamples:
    """Images encoded by the frozen image tower, with their labels.

    Attributes:
        seconds: time that encoding took.
    """

    encoded: Features | Encoded
    labels: Int[Tensor, " n"]
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Accuracy of a method on n images, in percent.

    Attributes:
        accuracy: top-1.
        macro_accuracy: mean of `per_class` over the classes that have images.
        per_class: top-1 of each class in the order of the class names; None for a class without images.
        seconds: time that encoding and classifying took.
        classnames: the classes that were chosen from.
        temperature: of the method.
        labels: the true class of each image.
        logits: of each image, not divided by the temperature.
        probabilities: of each image, under the temperature.
    """

    accuracy: float
    macro_accuracy: float
    per_class: tuple[float | None, ...] = field(repr=False)
    n: int
    seconds: float
    classnames: tuple[str, ...] = field(repr=False)
    temperature: float
    labels: Int[Tensor, " n"] = field(repr=False)
    logits: Float[Tensor, "n classes"] = field(repr=False)
    probabilities: Float[Tensor, "n classes"] = field(repr=False)

    @cached_property
    def predicted(self) -> Int[Tensor, " n"]:
        """The most likely class of each image."""
        return self.logits.argmax(dim=-1)  # of the probabilities, rounding can make two equal

    @cached_property
    def confusion(self) -> ConfusionMatrix:
        """The confusion matrix, which also has precision, recall and F1 of each class."""
        return ConfusionMatrix.of(self.classnames, self.labels, self.predicted)

    @cached_property
    def calibration(self) -> CalibrationError:
        """The calibration error of the probabilities."""
        return CalibrationError.of(self.logits, self.labels, self.temperature)

    @cached_property
    def uncalibrated(self) -> CalibrationError:
        """The calibration error without the temperature."""
        return CalibrationError.of(self.logits, self.labels)


@torch.no_grad()
def encode_samples(
    method: Method,
    samples: Sequence[Sample],
    *,
    batch: int = 64,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> EncodedSamples:
    """Encode the evaluation view of each image, or take it from the feature store.

    Only for methods with `frozen_images`: a method that learns inside the image tower encodes images its own way.

    Raises:
        InputError: no images, or one that cannot be read.
    """
    started = time.perf_counter()
    _check_any(samples)
    requests = [ViewRequest(sample.image, "eval") for sample in samples]
    store = FeatureStore.default(method.backbone)
    encoded = encode_views(store, requests, batch=batch, workers=workers, on_progress=on_progress)
    labels = torch.tensor([sample.label for sample in samples])
    return EncodedSamples(encoded, labels, time.perf_counter() - started)


@torch.no_grad()
def evaluate(method: Method, samples: EncodedSamples, *, batch: int = 64) -> Evaluation:
    """Evaluate a method over its own class names on encoded images."""
    started = time.perf_counter()
    device, compute_logits = method.backbone.device, logits_function(method.eval())
    logits = [
        compute_logits(samples.encoded[i : i + batch].to(device)).float().cpu()
        for i in range(0, len(samples.labels), batch)
    ]
    seconds = samples.seconds + time.perf_counter() - started
    return _summarise(method, logits, samples.labels, seconds)


@torch.no_grad()
def evaluate_images(
    method: Method,
    samples: Sequence[Sample],
    *,
    batch: int = 64,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """Evaluate any method over its own class names on image files.

    For a method that learns inside the image tower, images are read and classified batch by batch, and nothing is
    cached.

    Raises:
        InputError: no images, or one that cannot be read.
    """
    if method.frozen_images:
        encoded = encode_samples(method, samples, batch=batch, workers=workers, on_progress=on_progress)
        return evaluate(method, encoded, batch=batch)
    started = time.perf_counter()
    _check_any(samples)
    device, compute_logits = method.backbone.device, logits_function(method.eval())
    logits, labels = [], []
    for views, label, _ in eval_batches(samples, method.backbone.preprocess, batch, workers):
        logits.append(compute_logits(method.encode(views[0].to(device))).float().cpu())
        labels.append(label)
        on_progress(len(label))
    return _summarise(method, logits, torch.cat(labels), time.perf_counter() - started)


@torch.no_grad()
def logits_function(method: Method) -> Callable[[Any], Float[Tensor, "batch classes"]]:
    """Return a function from encoded images to logits, for many images.

    Text that does not depend on the image is encoded here, once.
    """
    if method.text_depends_on_image:
        return method.logits
    classes = method.class_vectors()
    return lambda encoded: method.backbone.logit_scale * similarity(method.image_vectors(encoded), classes)


def _check_any(samples: Sequence[Sample]) -> None:
    if not samples:
        raise InputError("there are no images to evaluate on")


def _summarise(method: Method, parts: list[Tensor], labels: Tensor, seconds: float) -> Evaluation:
    logits, classes = torch.cat(parts), len(method.classnames)
    probabilities = method.probabilities(logits)
    if not probabilities.isfinite().all():
        image = int((~probabilities.isfinite()).any(dim=1).nonzero()[0])
        raise InputError(
            f"the predictions are not finite, first for image {image}: train the run again, with another --output"
        )
    correct = (logits.argmax(dim=-1) == labels).double()
    counts = torch.bincount(labels, minlength=classes)
    per_class = 100 * torch.bincount(labels, weights=correct, minlength=classes) / counts
    return Evaluation(
        accuracy=100 * correct.mean().item(),
        macro_accuracy=per_class[counts > 0].mean().item(),
        per_class=tuple(value if count else None for value, count in zip(per_class.tolist(), counts, strict=True)),
        n=len(correct),
        seconds=seconds,
        classnames=method.classnames,
        temperature=method.temperature,
        labels=labels,
        logits=logits,
        probabilities=probabilities,
    )
