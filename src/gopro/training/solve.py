"""Methods that are solved in closed form from all training images at once."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from gopro.clip.backbone import Encoded
from gopro.data.dataset import Dataset, Sample
from gopro.data.images.decoded_image import load_into_memory
from gopro.data.images.loader import EpochBatches, ViewSettings, train_batches
from gopro.inference.evaluate import encode_samples
from gopro.methods.base import Method
from gopro.methods.recipe import Recipe
from gopro.runs.config import TrainConfig
from gopro.training.batches import encode_bank, view_settings
from gopro.training.devices import Runtime


def solve(method: Method, dataset: Dataset, recipe: Recipe, config: TrainConfig, runtime: Runtime) -> float:
    """Call `Method.solve` with the training and validation images. Return the seconds it took.

    Args:
        recipe: only its crop and its view bank count here.
    """
    started = time.perf_counter()
    val = None
    if dataset.val:
        with runtime.fabric.autocast():
            samples = encode_samples(method, dataset.val, workers=config.workers)
        val = samples.encoded[:].to(runtime.device), samples.labels.to(runtime.device)
    labels = torch.tensor([sample.label for sample in dataset.train], device=runtime.device)
    views = view_settings(method, recipe, config, recipe.bank)
    method.solve(lambda count: encode_draws(method, count, dataset.train, views, config.seed, runtime), labels, val)
    if dataset.unlabeled:
        unlabeled = [Sample(image, -1) for image in dataset.unlabeled]  # nothing reads the label
        with runtime.fabric.autocast():
            samples = encode_samples(method, unlabeled, workers=config.workers)
        method.solve_unlabeled(samples.encoded[:].to(runtime.device))
    return time.perf_counter() - started


def encode_draws(
    method: Method, count: int, samples: Sequence[Sample], settings: ViewSettings, seed: int, runtime: Runtime
) -> Iterator[Encoded]:
    """Yield all training images in their order, [n]: `count` random draws, or the evaluation view if it is 0.

    One draw at a time is in memory. With a view bank of K draws, draw d is the bank's draw d mod K.
    """
    device = runtime.device
    if not count:
        with runtime.fabric.autocast():
            encoded = encode_samples(method, samples, workers=settings.workers).encoded
        yield encoded[:].to(device)
        return
    if settings.bank:
        draws = min(settings.bank, count)
        features = encode_bank(method, method.views[:1], samples, replace(settings, bank=draws), runtime)
        first_draw = torch.arange(len(samples)) * draws
        for draw in range(count):
            yield features[first_draw + draw % draws].to(device)
        return
    # The loader leaves out a last batch of one image, so take the largest batch size that leaves no such batch.
    size = next(size for size in range(64, 1, -1) if len(samples) % size != 1)
    images = load_into_memory(samples, method.backbone.preprocess)
    loader = train_batches(images, method.views[:1], settings, EpochBatches(len(images), size, seed))
    for draw in range(count):
        loader.set_epoch(draw)
        parts, indices = [], []
        for batch in loader:
            with runtime.fabric.autocast():
                parts.append(method.encode(batch.views[0].to(device)))
            indices.append(batch.indices)
        yield Encoded.cat(parts)[torch.cat(indices).argsort().to(device)]  # shuffled batches, back in order
