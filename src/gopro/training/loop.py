"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import repeat
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from gopro.data.dataset import Dataset, Sample
from gopro.inference.evaluate import encode_samples, evaluate, evaluate_images
from gopro.methods.base import Method
from gopro.methods.recipe import Recipe
from gopro.runs.config import TrainConfig
from gopro.training.batches import training_batches
from gopro.training.devices import Runtime
from gopro.training.lr_schedule import learning_rate
from gopro.training.non_finite import NonFiniteGuard
from gopro.training.progress import NO_PROGRESS, Epoch, Progress, Step
from gopro.training.resume_state import LOG, RESUME, BestEpoch, EpochLog, ResumeState
from gopro.training.unlabeled_batches import unlabeled_batches


class FitResult(NamedTuple):
    """The seconds that training took, interrupted runs included, and the number of skipped steps."""

    seconds: float
    skipped: int


def fit(
    method: Method,
    dataset: Dataset,
    recipe: Recipe,
    config: TrainConfig,
    runtime: Runtime,
    progress: Progress = NO_PROGRESS,
) -> FitResult:
    """Train a method in place, from where an interrupted run in `config.output` left off.

    After each epoch, `resume.safetensors` holds what was learned and the optimiser's state, and `log.csv` the losses.
    The order of the images and their views depend only on the seed, the epoch and the image, so that a resumed run ends
    with the same bits as one that was never interrupted. Each of several processes trains on its share of every batch;
    rank 0 writes.

    With `config.select == "val"` the method ends as it was after the epoch with the highest accuracy on the validation
    images, the latest of equal ones.

    Args:
        dataset: its training images are trained on, all of them, and those without labels beside them.
        recipe: epochs, batch size, optimiser and view bank.
        config: output folder, seed, and what to do about steps that are not finite.

    Raises:
        InputError: a loss or gradient is not finite; an image cannot be read; the folder cannot be written.
    """
    started, ranks = time.perf_counter(), runtime.ranks
    val = dataset.val if config.select == "val" else ()
    parameters = [parameter for parameter in method.parameters() if parameter.requires_grad]
    module, optimizer = runtime.fabric.setup(method, make_optimizer(parameters, recipe))
    images = [*(sample.image for sample in (*dataset.train, *val)), *dataset.unlabeled]
    state = ResumeState.open(config.output, method, optimizer, images, ranks)  # empty for a new run
    started -= state.seconds
    batches = training_batches(method, dataset, recipe, config, runtime, progress.fill)
    unlabeled_images = None
    if dataset.unlabeled and method.unlabeled_in_steps:
        unlabeled_images = unlabeled_batches(method, dataset, recipe, config, runtime, batches, progress.fill)
    validation = Validation(method, val, config.workers) if val and ranks.is_first else None
    guard = NonFiniteGuard(parameters, config.non_finite, config.output / RESUME, state.skipped)
    total = recipe.epochs * len(batches)
    for epoch in range(state.epochs, recipe.epochs):
        log, lr = EpochLog(epoch), 0.0
        module.train()
        others = repeat(None) if unlabeled_images is None else unlabeled_images.epoch(epoch)
        for i, ((encoded, labels), unlabeled) in enumerate(zip(batches.epoch(epoch), others, strict=False)):
            position = i % config.accumulate  # of the batch within its optimiser step
            step_size = min(config.accumulate, len(batches) - i + position)  # the last step of an epoch may be smaller
            number = epoch * len(batches) + i + 1
            if position == 0:
                lr = learning_rate(recipe, epoch + i / len(batches))
                for group in optimizer.param_groups:
                    group["lr"] = lr
                optimizer.zero_grad()
            with ranks.batch(batches.size(i)) as weight:
                losses = backward(module, (encoded, labels, unlabeled), runtime.fabric, weight, step_size)
            losses = ranks.mean(losses, weight)
            if position == step_size - 1:
                ranks.average_gradients(parameters)
                if guard.allows(number, losses):
                    optimizer.step()
            log.add(lr, losses)
            progress.step(Step(number, total, epoch, lr, losses))
        guard.end_epoch(epoch)
        method.end_epoch(epoch, recipe.epochs)
        accuracy = ranks.broadcast(validation.accuracy() if validation is not None else None)
        if accuracy is not None and (state.best is None or accuracy >= state.best.accuracy):
            state.best = BestEpoch(accuracy, {key: tensor.clone() for key, tensor in method.state_dict().items()})
        if ranks.is_first:
            state.epochs, state.seconds, state.skipped = epoch + 1, time.perf_counter() - started, guard.skipped
            log.append_to(config.output / LOG, state.seconds, accuracy)
            state.save(method, optimizer)
            progress.epoch(Epoch(epoch, recipe.epochs, log.batches, state.seconds, accuracy))
    module.eval()
    if state.best is not None:
        method.load_state_dict(state.best.learned)
    return FitResult(time.perf_counter() - started, guard.skipped)


def make_optimizer(parameters: Sequence[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimiser."""
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(parameters, recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    return torch.optim.AdamW(parameters, recipe.lr, eps=recipe.eps, weight_decay=recipe.weight_decay)


def backward(
    module: nn.Module, batch: tuple[Any, Tensor, Any], fabric: Fabric, weight: float, step_size: int
) -> dict[str, Tensor]:
    """Add a batch's gradients to those of its optimiser step.

    Args:
        batch: encoded images, their labels, and encoded images without labels or None; see `Method.forward`.
        weight: of this process's losses, see `gopro.distributed.Ranks.batch`.
        step_size: batches whose gradients are averaged.

    Returns:
        This process's losses by name and their sum as `total`, without the weight.
    """
    terms = module(*batch)
    total = torch.stack(list(terms.values())).sum()
    fabric.backward(total * weight / step_size)
    return {"total": total.detach(), **{name: term.detach() for name, term in terms.items()}}


class Validation:
    """The validation images of a run, encoded once where the image tower is frozen."""

    def __init__(self, method: Method, samples: Sequence[Sample], workers: int):
        self.method, self.samples, self.workers = method, samples, workers
        self.encoded = encode_samples(method, samples, workers=workers) if method.frozen_images else None

    def accuracy(self) -> float:
        """Return the method's accuracy in percent."""
        if self.encoded is not None:
            return evaluate(self.method, self.encoded).accuracy
        return evaluate_images(self.method, self.samples, workers=self.workers).accuracy
