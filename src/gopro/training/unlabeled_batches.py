"""The images without labels of each training step, in an order that depends only on the seed and the step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric

from gopro.clip.features.encode_views import Features
from gopro.data.dataset import Dataset, Sample
from gopro.data.images.decoded_image import load_into_memory
from gopro.data.images.loader import EpochBatches, ImageLoader, SampleKey, train_batches
from gopro.data.images.transforms import stable_seed
from gopro.data.unlabeled import draw_images
from gopro.methods.base import Method
from gopro.methods.recipe import Recipe
from gopro.runs.config import TrainConfig
from gopro.training.batches import TrainingBatches, encode_bank, view_settings
from gopro.training.devices import Runtime


class UnlabeledBatches(Protocol):
    """One batch of images without labels for each labelled one, of the same size."""

    def epoch(self, epoch: int) -> Iterator[Any]:
        """Yield this process's share of each batch on the device: `Method.encode` of the views, [views, batch]."""
        ...


def unlabeled_batches(
    method: Method,
    dataset: Dataset,
    recipe: Recipe,
    config: TrainConfig,
    runtime: Runtime,
    labelled: TrainingBatches,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
) -> UnlabeledBatches:
    """Return the batches of `dataset.unlabeled` that go with the labelled ones.

    If there are more images than the batches of all epochs hold, a random part of them is used.
    All images come once, in a new order, before any comes again, with new views. They are encoded and cached as the
    labelled ones are; see `training_batches`.

    Raises:
        InputError: an image cannot be read, now or in a later epoch.
    """
    images = draw_images(dataset.unlabeled, recipe.epochs * len(labelled) * recipe.batch, config.seed)
    order = UnlabeledOrder(len(images), recipe.batch, config.seed, labelled, runtime)
    rounds = order.rounds(recipe.epochs)
    settings = view_settings(method, recipe, config, min(recipe.bank, rounds))
    # The loader takes samples with a label, which nothing reads here.
    samples = [Sample(image, -1) for image in images]
    if recipe.bank and method.frozen_images:
        features = encode_bank(method, method.views, samples, settings, runtime, on_fill)
        return _CachedUnlabeled(features, len(method.views), settings.bank, order, runtime.fabric)
    # An image that is opened only once is left on disk, for the workers to decode.
    loaded = load_into_memory(samples, method.backbone.preprocess, budget=0 if rounds == 1 else 2**30)
    return _DrawnUnlabeled(method, train_batches(loaded, method.views, settings, order), runtime.fabric)


class UnlabeledOrder(EpochBatches):
    """Batches of keys (round, index): in a round, each image comes at most once, in an order of the round's own.

    The images that a round's last full batch leaves over wait for the next round, so that no batch holds an image
    twice.

    Args:
        count: images, at least a batch of them.
        labelled: the batches whose number and sizes these ones share.
    """

    def __init__(self, count: int, batch_size: int, seed: int, labelled: TrainingBatches, runtime: Runtime):
        super().__init__(count, batch_size, stable_seed(seed, "unlabeled"), ranks=runtime.ranks)
        self.labelled, self.batches_per_round = labelled, count // batch_size

    def __len__(self) -> int:
        return len(self.labelled)

    def size(self, batch: int) -> int:
        return self.labelled.size(batch)

    def rounds(self, epochs: int) -> int:
        """Count the rounds that are begun in so many epochs."""
        return -(-epochs * len(self) // self.batches_per_round)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        for batch in range(len(self)):
            number, place = divmod(self.epoch * len(self) + batch, self.batches_per_round)
            generator = torch.Generator().manual_seed(stable_seed(self.seed, number, "order"))
            order = torch.randperm(self.count, generator=generator).tolist()
            keys = [(number, index) for index in order[place * self.batch_size :][: self.size(batch)]]
            yield keys[self.ranks.share(len(keys))]


class _DrawnUnlabeled:
    """Views that worker processes make and the image tower encodes, a batch at a time."""

    def __init__(self, method: Method, loader: ImageLoader, fabric: Fabric):
        self.method, self.loader, self.fabric = method, loader, fabric

    def epoch(self, epoch: int) -> Iterator[Any]:
        self.loader.set_epoch(epoch)
        for batch in self.loader:
            with self.fabric.autocast():
                encoded = self.method.encode(self.fabric.to_device(batch.views))
            yield encoded


class _CachedUnlabeled:
    """Draws of the view bank, encoded in advance: round r takes draw r mod K."""

    def __init__(self, features: Features, views: int, draws: int, order: UnlabeledOrder, fabric: Fabric):
        self.features, self.views, self.draws, self.order, self.fabric = features, views, draws, order, fabric

    def epoch(self, epoch: int) -> Iterator[Any]:
        self.order.epoch = epoch
        views = torch.arange(self.views)[:, None]
        for keys in self.order:
            rows = torch.tensor([index * self.draws + number % self.draws for number, index in keys])
            yield self.features[rows * self.views + views].to(self.fabric.device)
