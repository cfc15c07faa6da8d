"""What a training run steps on: views drawn anew each epoch, or the view bank, some draws encoded once for all runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from jaxtyping import Int
from lightning_fabric import Fabric
from torch import Tensor

from gopro.clip.feature_store import FeatureStore
from gopro.clip.features import Features, ViewRequest, encode_views
from gopro.data.dataset import Sample
from gopro.data.decoded_image import load_into_memory
from gopro.data.loader import EpochBatches, ViewSettings, train_batches
from gopro.data.transforms import CROP, ViewName
from gopro.distributed import SINGLE_PROCESS, Ranks
from gopro.methods.base import Method

ENCODED_AT_ONCE = 64
"""Views; several processes take turns by as many, so that they encode the same ones together as one process does."""


class TrainingBatches(Protocol):
    """Batches of encoded views in an order that depends on (seed, epoch) alone."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def size(self, batch: int) -> int:
        """Images of a batch, those of all processes."""
        ...

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Int[Tensor, " batch"]]]:
        """What the method's `encode` gives for its views, [views, batch], and the labels, on the device; this process's
        share of them."""
        ...


def training_batches(
    method: Method,
    samples: Sequence[Sample],
    batch: int,
    seed: int,
    fabric: Fabric,
    *,
    ranks: Ranks = SINGLE_PROCESS,
    bank: int = 0,
    crop: float = CROP,
    workers: int = 0,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
) -> TrainingBatches:
    """The batches that a method trains on.

    Args:
        bank: K of the view bank, whose draws depend on the images' content alone; epoch e takes draw e mod K. For
            a method that leaves the image tower frozen they are encoded now, as far as the feature store lacks them,
            and no image is opened afterwards. One that learns inside the tower is given the same draws, made when
            they are needed. 0: views of the run's own, new in each epoch.
        crop: of the random views, see `gopro.data.transforms.make_view`.
        on_fill: told how many views of the bank are encoded, and of how many.

    Raises:
        InputError: fewer images than a batch needs; one that cannot be read, now or later.
    """
    if bank and method.frozen_images:
        return CachedBatches(method, samples, batch, seed, fabric, ranks, bank, crop, workers, on_fill)
    return DrawnBatches(method, samples, batch, seed, fabric, ranks, bank, crop, workers)


class DrawnBatches:
    """Views made by worker processes and encoded a batch at a time."""

    def __init__(
        self,
        method: Method,
        samples: Sequence[Sample],
        batch: int,
        seed: int,
        fabric: Fabric,
        ranks: Ranks,
        bank: int,
        crop: float,
        workers: int,
    ):
        self.method, self.fabric = method, fabric
        preprocess = method.backbone.preprocess
        images = load_into_memory(samples, preprocess)
        settings = ViewSettings(preprocess, crop, bank, workers)
        self.loader = train_batches(images, method.views, settings, batch, seed, ranks=ranks)

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
    """Views that are encoded already, in the same order of images."""

    def __init__(
        self,
        method: Method,
        samples: Sequence[Sample],
        batch: int,
        seed: int,
        fabric: Fabric,
        ranks: Ranks,
        bank: int,
        crop: float,
        workers: int,
        on_fill: Callable[[int, int], None],
    ):
        self.batches = EpochBatches(len(samples), batch, seed, ranks=ranks)
        self.fabric, self.bank = fabric, bank
        self.labels = torch.tensor([sample.label for sample in samples])
        self.views = len(method.views)
        self.features = encode_drawn_views(method, method.views, samples, fabric, ranks, bank, crop, workers, on_fill)

    def __len__(self) -> int:
        return len(self.batches)

    def size(self, batch: int) -> int:
        return self.batches.size(batch)

    def epoch(self, epoch: int) -> Iterator[tuple[Any, Int[Tensor, " batch"]]]:
        self.batches.epoch = epoch
        views = torch.arange(self.views)[:, None]
        for keys in self.batches:
            images = torch.tensor([index for _, index in keys])
            encoded = self.features[(images * self.bank + epoch % self.bank) * self.views + views]
            yield encoded.to(self.fabric.device), self.fabric.to_device(self.labels[images])


def encode_drawn_views(
    method: Method,
    views: Sequence[ViewName],
    samples: Sequence[Sample],
    fabric: Fabric,
    ranks: Ranks,
    bank: int,
    crop: float,
    workers: int,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
) -> Features:
    """All draws of the views of all images, image by image: [images x bank x views].

    Several processes first encode a part each, and then find those of the others in the feature store; what cannot be
    found there, as where nothing is kept, each encodes for itself.
    """
    wanted = [ViewRequest(sample.image, view, draw) for sample in samples for draw in range(bank) for view in views]
    there = 0

    def more(done: int) -> None:
        nonlocal there
        there = min(there + done * ranks.count, len(wanted))
        on_fill(there, len(wanted))

    store = FeatureStore.default(method.backbone)
    with fabric.autocast():
        if ranks.count > 1 and store.folder is not None:
            own = [want for i, want in enumerate(wanted) if i // ENCODED_AT_ONCE % ranks.count == ranks.rank]
            encode_views(store, own, crop=crop, batch=ENCODED_AT_ONCE, workers=workers, on_progress=more)
            ranks.barrier()
        return encode_views(store, wanted, crop=crop, batch=ENCODED_AT_ONCE, workers=workers, on_progress=more)
