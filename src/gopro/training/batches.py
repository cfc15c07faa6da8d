"""The batches a run trains on: new random views in each epoch, or draws from the view bank, encoded once and kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from jaxtyping import Int
from torch import Tensor

from gopro.clip.features.encode_views import Features, ViewRequest, encode_views
from gopro.clip.features.store import FeatureStore
from gopro.data.dataset import Dataset, Sample
from gopro.data.images.decoded_image import load_into_memory
from gopro.data.images.loader import EpochBatches, ViewSettings, train_batches
from gopro.data.images.transforms import ViewName
from gopro.methods.base import Method
from gopro.methods.recipe import Recipe
from gopro.runs.config import TrainConfig
from gopro.training.devices import Runtime

VIEWS_PER_BATCH = 64
"""Views encoded at a time. Several processes take turns by as many, so that each batch holds the views it would hold in
one process and rounds the same way."""


class TrainingBatches(Protocol):
    """Batches of encoded views in an order that depends only on the seed and the epoch."""

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def size(self, batch: int) -> int:
        """Return the number of images in a batch, over all processes."""
        ...

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Int[Tensor, " batch"]]]:
        """Yield this process's share of each batch, on the device.

        Yields:
            The result of `Method.encode` for the method's views, [views, batch], and the labels, [batch].
        """
        ...


def training_batches(
    method: Method,
    dataset: Dataset,
    recipe: Recipe,
    config: TrainConfig,
    runtime: Runtime,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingBatches:
    """Return the batches of a run.

    `recipe.bank` is the number of draws K in the view bank, which depend only on the images' content; epoch e uses draw
    e mod K. A frozen image tower encodes them now, as far as the feature store lacks them, and no image is opened
    afterwards. A method that learns inside the image tower receives the same draws as images, made when they are
    needed. With K = 0 each epoch draws new views.

    Args:
        on_fill: called with the number of encoded views in the bank and the number it will hold.

    Raises:
        InputError: there are fewer images than a batch needs; an image cannot be read, now or in a later epoch.
    """
    if recipe.bank and method.frozen_images:
        return CachedBatches(method, dataset, recipe, config, runtime, on_fill)
    return DrawnBatches(method, dataset, recipe, config, runtime)


class DrawnBatches:
    """Views that worker processes make and the image tower encodes, a batch at a time."""

    def __init__(self, method: Method, dataset: Dataset, recipe: Recipe, config: TrainConfig, runtime: Runtime):
        self.method, self.fabric = method, runtime.fabric
        samples = load_into_memory(dataset.train, method.backbone.preprocess)
        views = view_settings(method, recipe, config, min(recipe.bank, recipe.epochs))
        self.loader = train_batches(samples, method.views, views, _epoch_batches(dataset, recipe, config, runtime))

    def __len__(self) -> int:
        return len(self.loader)

    def size(self, batch: int) -> int:
        return self.loader.epoch_batches.size(batch)

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Int[Tensor, " batch"]]]:
        self.loader.set_epoch(epoch)
        for batch in self.loader:
            with self.fabric.autocast():
                encoded = self.method.encode(self.fabric.to_device(batch.views))
            yield encoded, self.fabric.to_device(batch.labels)


class CachedBatches:
    """Views of the bank, encoded in advance, in the same order of images."""

    def __init__(
        self,
        method: Method,
        dataset: Dataset,
        recipe: Recipe,
        config: TrainConfig,
        runtime: Runtime,
        on_fill: Callable[[int, int], None],
    ):
        self.batches = _epoch_batches(dataset, recipe, config, runtime)
        self.fabric, self.views = runtime.fabric, len(method.views)
        self.labels = torch.tensor([sample.label for sample in dataset.train])
        self.draws = min(recipe.bank, recipe.epochs)
        settings = view_settings(method, recipe, config, self.draws)
        self.features = encode_bank(method, method.views, dataset.train, settings, runtime, on_fill)

    def __len__(self) -> int:
        return len(self.batches)

    def size(self, batch: int) -> int:
        return self.batches.size(batch)

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Int[Tensor, " batch"]]]:
        self.batches.epoch = epoch
        views = torch.arange(self.views)[:, None]
        for keys in self.batches:
            images = torch.tensor([index for _, index in keys])
            # The bank's rows are ordered [images, draws, views]; this gathers [views, batch] of one draw.
            encoded = self.features[(images * self.draws + epoch % self.draws) * self.views + views]
            yield encoded.to(self.fabric.device), self.fabric.to_device(self.labels[images])


def encode_bank(
    method: Method,
    views: Sequence[ViewName],
    samples: Sequence[Sample],
    settings: ViewSettings,
    runtime: Runtime,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """Encode the `settings.bank` draws of the views of all samples.

    Several processes first encode a part each and then read the others' from the feature store. Each process
    encodes for itself whatever the store does not keep.

    Returns:
        Features in the order [samples, draws, views], flattened.
    """
    requests = [
        ViewRequest(sample.image, view, draw) for sample in samples for draw in range(settings.bank) for view in views
    ]
    ranks, total, encoded = runtime.ranks, len(requests), 0

    def count(more: int) -> None:
        nonlocal encoded
        encoded = min(encoded + more * ranks.count, total)  # the other processes are assumed to be as far
        on_fill(encoded, total)

    store = FeatureStore.default(method.backbone)
    encode = partial(
        encode_views, store, crop=settings.crop, batch=VIEWS_PER_BATCH, workers=settings.workers, on_progress=count
    )
    with runtime.fabric.autocast():
        if ranks.count > 1 and store.folder is not None:
            encode([want for i, want in enumerate(requests) if i // VIEWS_PER_BATCH % ranks.count == ranks.rank])
            ranks.barrier()
        return encode(requests)


def view_settings(method: Method, recipe: Recipe, config: TrainConfig, bank: int) -> ViewSettings:
    """Return the settings of a run's random views.

    Args:
        bank: draws in the view bank, 0 for none; draws that no epoch reaches are not made.
    """
    return ViewSettings(method.backbone.preprocess, recipe.crop, bank, config.workers)


def _epoch_batches(dataset: Dataset, recipe: Recipe, config: TrainConfig, runtime: Runtime) -> EpochBatches:
    return EpochBatches(len(dataset.train), recipe.batch, config.seed, drop_last=recipe.drop_last, ranks=runtime.ranks)
