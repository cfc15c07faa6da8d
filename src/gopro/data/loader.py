"""Batches of views: every image's draw depends on the seed, the epoch, its index and the view's name alone, or where
draws are shared by runs (`bank`) on its content, the draw's number and the view's name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from gopro.data.dataset import ImageSource, Sample
from gopro.data.transforms import CROP, Preprocess, ViewName, make_view, reduced, seeded, stable_seed
from gopro.distributed import SINGLE_PROCESS, Ranks
from gopro.errors import InputError

Key = tuple[int, int]
"""Epoch and index of a sample."""


class Batch(NamedTuple):
    """V views of B images."""

    views: Float[Tensor, "views batch 3 size size"]
    labels: Int[Tensor, " batch"]
    indices: Int[Tensor, " batch"]
    """Where each image stands in the samples that the loader was made of."""


class ImageViews(Dataset[tuple[Tensor, int, int]]):
    """Samples as views: item (epoch, index) is (float32 [views, 3, size, size], label, index)."""

    def __init__(
        self,
        samples: Sequence[Sample],
        views: Sequence[ViewName],
        preprocess: Preprocess,
        seed: int = 0,
        bank: int = 0,
        crop: float = CROP,
    ) -> None:
        self.samples = samples
        self.views = {name: make_view(name, preprocess, crop) for name in views}
        self.seed, self.bank = seed, bank
        self.digests = [sample.image.digest() for sample in samples] if bank else []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, int]:
        epoch, index = key
        sample = self.samples[index]
        source = sample.image.open()
        draw = (self.digests[index], epoch % self.bank) if self.bank else (self.seed, epoch, index)
        views = [seeded(view, source, *draw, name) for name, view in self.views.items()]
        return torch.stack(views), sample.label, index

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Tensor, int, int]] | InputError:
        """Called by the DataLoader for a whole batch. An InputError is returned, not raised, for `ImageLoader`."""
        try:
            return [self[key] for key in keys]
        except InputError as error:
            return error


class DrawnView(NamedTuple):
    """One view of an image, whose content must be that of the digest; with the draw's number it seeds the view."""

    source: ImageSource
    view: ViewName
    digest: str
    draw: int


def open_unchanged(source: ImageSource, digest: str) -> Image.Image:
    """The image, mode RGB.

    Raises:
        InputError: it cannot be read, or its content is another by now.
    """
    image = source.open()
    if source.digest() != digest:  # looked at afterwards: whatever stood there in between, it is not taken for it
        raise InputError(f"{source.name}: the image was replaced by another while it was in use; restore it")
    return image


class DrawnViews(Dataset[Tensor]):
    """Single views: item i is float32 [3, size, size]. Views of one image that follow each other open it once."""

    def __init__(self, drawn: Sequence[DrawnView], preprocess: Preprocess, crop: float) -> None:
        self.drawn, self.size = drawn, preprocess.size
        names: set[ViewName] = {view.view for view in drawn}
        self.views = {name: make_view(name, preprocess, crop) for name in names}
        self._open: tuple[ImageSource, Image.Image] | None = None

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> Tensor:
        source, name, digest, draw = self.drawn[index]
        if name == "eval":
            return self.views[name](open_unchanged(source, digest))
        if self._open is None or self._open[0] is not source:
            self._open = source, reduced(open_unchanged(source, digest), self.size)
        return seeded(self.views[name], self._open[1], digest, draw, name)

    def __getitems__(self, indices: Sequence[int]) -> list[Tensor] | InputError:
        """As `ImageViews.__getitems__`."""
        try:
            return [self[index] for index in indices]
        except InputError as error:
            return error


class EpochBatches(Sampler[list[Key]]):
    """The keys of an epoch's batches, in an order that depends on (seed, epoch) alone; `epoch` may be set anew.

    A last batch of one image is left out, unless batches of one were asked for: contrastive losses and batch
    statistics need two. Being drawn anew each epoch, it is not always the same image that is left out. The batches
    are the same for any number of processes; each of these is given its share of every one.
    """

    def __init__(self, count: int, batch_size: int, seed: int, epoch: int = 0, ranks: Ranks = SINGLE_PROCESS) -> None:
        """Raises InputError: a batch size below 1, one image where batches of two or more are asked for."""
        _check_batch_size(batch_size)
        self.batch_size, self.seed, self.epoch, self.ranks = batch_size, seed, epoch, ranks
        self.kept = count - 1 if count % batch_size == 1 and batch_size > 1 else count
        self.count = count
        if not self.kept:
            raise InputError(f"{count} training images: give at least 2, or use batches of 1")

    def __len__(self) -> int:
        return -(-self.kept // self.batch_size)

    def size(self, batch: int) -> int:
        """Images of a batch, those of all processes."""
        return min(self.batch_size, self.kept - batch * self.batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self.epoch, "order"))
        keys = [(self.epoch, index) for index in torch.randperm(self.count, generator=generator).tolist()]
        batches = [keys[i : i + self.batch_size] for i in range(0, self.kept, self.batch_size)]
        return iter([batch[self.ranks.share(len(batch))] for batch in batches])


class ImageLoader(DataLoader[Any]):
    """A DataLoader that raises a worker's InputError as it was, where DataLoader would wrap it in a traceback."""

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                raise batch
            yield batch

    def set_epoch(self, epoch: int) -> None:
        """Take the order and draws of this epoch from the next iteration on. Training loaders only."""
        self.epoch_batches.epoch = epoch

    @property
    def epoch_batches(self) -> EpochBatches:
        """What a training loader makes its batches of."""
        assert isinstance(self.batch_sampler, EpochBatches)
        return self.batch_sampler


def train_batches(
    samples: Sequence[Sample],
    views: Sequence[ViewName],
    preprocess: Preprocess,
    batch_size: int,
    seed: int,
    epoch: int = 0,
    workers: int = 0,
    bank: int = 0,
    crop: float = CROP,
    ranks: Ranks = SINGLE_PROCESS,
) -> ImageLoader:
    """Shuffled batches of views for one epoch; `set_epoch` makes the same loader (and its workers) go on to another.

    The batches are the same bits whatever the number of workers and whatever was drawn before. See `EpochBatches` for
    a last batch of one image. `load_into_memory` saves decoding the images again each epoch.

    Args:
        bank: where above 0, epoch e takes draw e mod `bank` of those that depend on an image's content alone.
        crop: see `gopro.data.transforms.make_view`.
        ranks: which share of each batch to make.

    Raises:
        InputError: a batch size below 1, one image where batches of two or more are asked for; while iterating,
            an image that cannot be read.
    """
    batches = EpochBatches(len(samples), batch_size, seed, epoch, ranks)
    return _loader(ImageViews(samples, views, preprocess, seed, bank, crop), batches, workers)


def eval_batches(samples: Sequence[Sample], preprocess: Preprocess, batch_size: int, workers: int = 0) -> ImageLoader:
    """All samples in order, as batches [1, batch, 3, size, size] of the evaluation view.

    Raises:
        InputError: a batch size below 1; while iterating, an image that cannot be read.
    """
    _check_batch_size(batch_size)
    keys = [(0, index) for index in range(len(samples))]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    return _loader(ImageViews(samples, ("eval",), preprocess), batches, workers)


def view_batches(
    drawn: Sequence[DrawnView], preprocess: Preprocess, batch_size: int, crop: float = CROP, workers: int = 0
) -> ImageLoader:
    """Single views in order, as batches [batch, 3, size, size].

    Raises:
        InputError: while iterating, an image that cannot be read.
    """
    batches = [list(range(i, min(i + batch_size, len(drawn)))) for i in range(0, len(drawn), batch_size)]
    return _loader(DrawnViews(drawn, preprocess, crop), batches, workers)


@dataclass(frozen=True, slots=True)
class SameImage:
    """An image that is opened again and again, and must stay what it was."""

    source: ImageSource
    known: str
    """Its digest."""

    @property
    def name(self) -> str:
        return self.source.name

    def open(self) -> Image.Image:
        """See `open_unchanged`."""
        return open_unchanged(self.source, self.known)

    def digest(self) -> str:
        return self.known


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """An image held in memory."""

    name: str
    image: Image.Image
    source: ImageSource | None = None
    """What it was decoded from, if that is an image itself."""

    def open(self) -> Image.Image:
        """A copy of the image, mode RGB."""
        return self.image.copy()

    def digest(self) -> str:
        if self.source is not None:
            return self.source.digest()
        return hashlib.blake2b(repr(self.image.size).encode() + self.image.tobytes(), digest_size=16).hexdigest()


def load_into_memory(samples: Sequence[Sample], preprocess: Preprocess, budget: int = 2**30) -> tuple[Sample, ...]:
    """Training samples with their images decoded, the first that fit into `budget` bytes; the others are opened when
    they are needed, and must be the same then.

    For the random views alone: images are kept no larger than these need (`gopro.data.transforms.reduced`), so that the
    views are the same bits with and without. Worker processes that are forked share the memory.

    Raises:
        InputError: an image cannot be read.
    """
    kept: list[Sample] = []
    for sample in samples:
        if budget > 0:
            image = reduced(sample.image.open(), preprocess.size)
            budget -= 4 * image.width * image.height  # PIL holds RGB as four bytes a pixel
            if budget >= 0:
                source: ImageSource = DecodedImage(sample.image.name, image, sample.image)
                kept.append(replace(sample, image=source))
                continue
        kept.append(replace(sample, image=SameImage(sample.image, sample.image.digest())))
    return tuple(kept)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}: give at least 1")


def _loader(
    dataset: ImageViews | DrawnViews, batches: Sampler[list[Key]] | list[list[Key]] | list[list[int]], workers: int
) -> ImageLoader:
    return ImageLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate if isinstance(dataset, ImageViews) else _stack,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # its own, so that iterating draws nothing from the global one
    )


def _collate(items: list[tuple[Tensor, int, int]] | InputError) -> Batch | InputError:
    if isinstance(items, InputError):
        return items
    views, labels, indices = zip(*items, strict=True)
    return Batch(torch.stack(views, dim=1), torch.tensor(labels), torch.tensor(indices))


def _stack(views: list[Tensor] | InputError) -> Tensor | InputError:
    return views if isinstance(views, InputError) else torch.stack(views)
