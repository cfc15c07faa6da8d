"""How well a method does: pictures through the frozen tower once, then accuracies."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gopro.backbone import Encoded
from gopro.data.dataset import Sample
from gopro.data.loader import eval_batches
from gopro.errors import InputError
from gopro.methods import Method


@dataclass(frozen=True)
class EncodedSamples:
    """Test pictures as the frozen tower sees them, in main memory, with their labels."""

    encoded: Encoded
    labels: Int[Tensor, " n"]
    seconds: float


@dataclass(frozen=True)
class Evaluation:
    """Accuracies in percent; `per_class` in the order of the class names, None for a class without a picture."""

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
    """The evaluation view of each picture through the part of the method that nothing learned touches.

    Raises:
        InputError: no pictures; one that cannot be read.
    """
    if not samples:
        raise InputError("there are no pictures to evaluate on")
    started = time.perf_counter()
    parts, labels = [], []
    for views, label, indices in eval_batches(samples, method.backbone.preprocess, batch, workers):
        parts.append(method.encode(views[0].to(method.backbone.device)).to("cpu"))
        labels.append(label)
        on_progress(len(indices))
    return EncodedSamples(Encoded.cat(parts), torch.cat(labels), time.perf_counter() - started)


@torch.no_grad()
def evaluate(method: Method, samples: EncodedSamples, *, batch: int = 64) -> Evaluation:
    """Top-1 accuracy, its mean over classes, and each class's own, of `method` over its own class names."""
    started = time.perf_counter()
    method.eval()
    device = method.backbone.device
    logits = [
        method.logits(samples.encoded[i : i + batch].to(device)).float().cpu()
        for i in range(0, len(samples.labels), batch)
    ]
    probabilities = torch.cat(logits).softmax(dim=-1)
    right = (probabilities.argmax(dim=-1) == samples.labels).double()
    classes = len(method.classnames)
    counts = torch.bincount(samples.labels, minlength=classes)
    per_class = 100 * torch.bincount(samples.labels, weights=right, minlength=classes) / counts
    return Evaluation(
        accuracy=100 * right.mean().item(),
        macro_accuracy=per_class[counts > 0].mean().item(),
        per_class=tuple(value if count else None for value, count in zip(per_class.tolist(), counts, strict=True)),
        n=len(right),
        seconds=samples.seconds + time.perf_counter() - started,
        probabilities=probabilities,
    )
