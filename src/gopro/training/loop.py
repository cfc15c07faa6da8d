"""The training loop, and the choice of the epoch to keep."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor

from gopro.data.dataset import CROP, Sample
from gopro.distributed import SINGLE_PROCESS, Ranks
from gopro.inference.evaluate import encode_samples, evaluate, evaluate_images
from gopro.methods.base import Method, Recipe
from gopro.runs.config import NonFinite
from gopro.training.batches import training_batches
from gopro.training.non_finite import NonFiniteGuard
from gopro.training.resume_state import LOG, RESUME, Best, Seen, load_state, log_epoch, save_state

WARMUP_LR = 1e-5


@dataclass(frozen=True)
class Step:
    """What a step of training says of itself; `terms` are the weighted losses, still on the device."""

    step: int
    steps: int
    epoch: int
    lr: float
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class FitResult:
    """What training took: seconds, those before a cut included, and how many steps were skipped."""

    seconds: float
    skipped: int


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate at a fractional epoch: constant and small for the warm-up, then a cosine down to 0."""
    if epoch < recipe.warmup:
        return min(WARMUP_LR, recipe.lr)
    return recipe.lr * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


def fit(
    method: Method,
    samples: Sequence[Sample],
    recipe: Recipe,
    fabric: Fabric,
    *,
    seed: int,
    folder: Path,
    ranks: Ranks = SINGLE_PROCESS,
    val: Sequence[Sample] = (),
    accumulate: int = 1,
    non_finite: NonFinite = "stop",
    bank: int = 0,
    crop: float = CROP,
    workers: int = 0,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> FitResult:
    """Trains a method in place, going on where `folder` says that an earlier call was cut off.

    After every epoch the learned tensors and the optimiser's state are in `folder/resume.safetensors` and the losses
    in `folder/log.csv`. Order and views depend on (seed, epoch, image) alone, so a run that was cut ends as one that
    was not. Of several processes each takes its share of every batch, and the first one writes.

    Args:
        val: where given, the method ends as it was after the epoch with the highest accuracy on these images, the
            latest of equals; each epoch's is in the log.
        accumulate: batches whose gradients are averaged for one step of the optimiser.
        non_finite: whether a step whose loss or gradient is not finite stops the run, or is left out and counted.
        bank: K of the view bank; see `gopro.training.batches.training_batches`.
        crop: of the random views, see `gopro.data.transforms.make_view`.
        on_fill: told how many of the bank's views are there, and of how many.

    Raises:
        InputError: a loss or gradient that is not finite, or with `skip` those of a whole epoch; an image that cannot
            be read; a folder that cannot be written.
    """
    parameters = [p for p in method.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        plain = torch.optim.SGD(parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    else:
        plain = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    module, optimizer = fabric.setup(method, plain)
    started = time.perf_counter()
    seen = Seen.of([*samples, *val]) if ranks.is_first else None
    first, earlier, skipped, best = load_state(folder, method, optimizer, ranks, seen)
    started -= earlier
    bank = min(bank, recipe.epochs)  # draws that no epoch comes to are not encoded
    batches = training_batches(
        method,
        samples,
        recipe.batch,
        seed,
        fabric,
        ranks=ranks,
        bank=bank,
        crop=crop,
        workers=workers,
        on_fill=on_fill,
    )
    steps = len(batches)
    finite = NonFiniteGuard(parameters, non_finite, folder / RESUME, skipped)
    chooses = bool(val) and ranks.is_first
    held_out = encode_samples(method, val, workers=workers) if chooses and method.frozen_images else None
    for epoch in range(first, recipe.epochs):
        module.train()
        lrs, losses = [], []
        for i, (encoded, labels) in enumerate(batches.epoch(epoch)):
            start = i - i % accumulate
            together = min(accumulate, steps - start)
            if i == start:
                lr = learning_rate(recipe, epoch + i / steps)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                optimizer.zero_grad()
            with ranks.batch(batches.size(i)) as weight:
                terms = module(encoded, labels)
                total = torch.stack(list(terms.values())).sum()
                fabric.backward(total * weight / together)
            terms = {"total": total.detach(), **{name: term.detach() for name, term in terms.items()}}
            terms = ranks.mean(terms, weight)
            if i == start + together - 1:
                ranks.average_gradients(parameters)
                if finite.allows(epoch * steps + i + 1, terms):
                    optimizer.step()
            lrs.append(lr)
            losses.append(terms)
            on_step(Step(epoch * steps + i + 1, recipe.epochs * steps, epoch, lr, terms))
        finite.end_epoch(epoch)
        method.end_epoch(epoch, recipe.epochs)
        accuracy = None
        if held_out is not None:
            accuracy = evaluate(method, held_out).accuracy
        elif chooses:
            accuracy = evaluate_images(method, val, workers=workers).accuracy
        accuracy = ranks.broadcast(accuracy)
        if accuracy is not None and (best is None or accuracy >= best.accuracy):
            best = Best(accuracy, {key: tensor.clone() for key, tensor in method.state_dict().items()})
        if ranks.is_first:
            seconds = time.perf_counter() - started
            log_epoch(folder / LOG, epoch, steps, lrs, losses, seconds, accuracy)
            save_state(folder, method, optimizer, epoch + 1, seconds, finite.skipped, best, seen)
    module.eval()
    if best is not None:
        method.load_state_dict(best.learned)
    return FitResult(time.perf_counter() - started, finite.skipped)
