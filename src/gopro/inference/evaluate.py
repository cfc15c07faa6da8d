"""How well a method does: images through the tower, once for all methods where it is frozen, then accuracies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gopro.clip.backbone import Encoded
from gopro.clip.feature_store import FeatureStore
from gopro.clip.features import Features, ViewRequest, encode_views
from gopro.data.dataset import Sample
from gopro.data.loader import eval_batches
from gopro.errors import InputError
from gopro.inference.taylor_head import with_fixed_text
from gopro.methods.base import Method


@dataclass(frozen=True)
class EncodedSamples:
    """Test images as the frozen tower sees them, with their labels."""

    encoded: Features | Encoded
    labels: Int[Tensor, " n"]
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in percent; `per_class` in the order of the class names, None for a class without an image."""

    accuracy: float
    macro_accuracy: float
    per_class: tuple[float | None, ...]
    n: int
    seconds: float
    probabilities: Float[Tensor, "n classes"]


@torch.no_grad()
def encode_samples(
    method: Method,
    samples: Sequence[Sample],
    *,
    batch: int = 64,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> EncodedSamples:
    """The evaluation view of each image through the frozen tower, or out of the feature store.

    Only where `method.frozen_images`.

    Raises:
        InputError: no images; one that cannot be read.
    """
    started = time.perf_counter()
    _check_any(samples)
    wanted = [ViewRequest(sample.image, "eval") for sample in samples]
    store = FeatureStore.default(method.backbone)
    encoded = encode_views(store, wanted, batch=batch, workers=workers, on_progress=on_progress)
    labels = torch.tensor([sample.label for sample in samples])
    return EncodedSamples(encoded, labels, time.perf_counter() - started)


@torch.no_grad()
def evaluate(method: Method, samples: EncodedSamples, *, batch: int = 64) -> Evaluation:
    """Top-1 accuracy, its mean over classes, and each class's own, of `method` over its own class names."""
    started = time.perf_counter()
    method = with_fixed_text(method.eval())
    device = method.backbone.device
    logits = [
        method.logits(samples.encoded[i : i + batch].to(device)).float().cpu()
        for i in range(0, len(samples.labels), batch)
    ]
    return _judged(logits, samples.labels, len(method.classnames), samples.seconds + time.perf_counter() - started)


@torch.no_grad()
def evaluate_images(
    method: Method,
    samples: Sequence[Sample],
    *,
    batch: int = 64,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Evaluation:
    """As `evaluate`, for any method: of one that learns inside the image tower, images are read and classified a
    batch at a time and nothing is kept.

    Raises:
        InputError: no images; one that cannot be read.
    """
    if method.frozen_images:
        encoded = encode_samples(method, samples, batch=batch, workers=workers, on_progress=on_progress)
        return evaluate(method, encoded, batch=batch)
    started = time.perf_counter()
    _check_any(samples)
    method = with_fixed_text(method.eval())
    device = method.backbone.device
    logits, labels = [], []
    for views, label, _ in eval_batches(samples, method.backbone.preprocess, batch, workers):
        logits.append(method.logits(method.encode(views[0].to(device))).float().cpu())
        labels.append(label)
        on_progress(len(label))
    return _judged(logits, torch.cat(labels), len(method.classnames), time.perf_counter() - started)


def _check_any(samples: Sequence[Sample]) -> None:
    if not samples:
        raise InputError("there are no images to evaluate on")


def _judged(logits: list[Tensor], labels: Tensor, classes: int, seconds: float) -> Evaluation:
    probabilities = torch.cat(logits).softmax(dim=-1)
    if not probabilities.isfinite().all():
        image = int((~probabilities.isfinite()).any(dim=1).nonzero()[0])
        raise InputError(f"the predictions are not finite, those of image {image} first: the run is of no use")
    right = (probabilities.argmax(dim=-1) == labels).double()
    counts = torch.bincount(labels, minlength=classes)
    per_class = 100 * torch.bincount(labels, weights=right, minlength=classes) / counts
    return Evaluation(
        accuracy=100 * right.mean().item(),
        macro_accuracy=per_class[counts > 0].mean().item(),
        per_class=tuple(value if count else None for value, count in zip(per_class.tolist(), counts, strict=True)),
        n=len(right),
        seconds=seconds,
        probabilities=probabilities,
    )
