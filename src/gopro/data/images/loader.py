"""Batches of views, made by worker processes. Each random view is seeded on its own, so batches are the same bits
whatever the number of workers and processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from gopro.data.dataset import CROP, ImageSource, Sample
from gopro.data.images.decoded_image import open_verified
from gopro.data.images.transforms import (
    Preprocess,
    ViewName,
    draw_view,
    make_pixel_view,
    normalize,
    shrink_for_crops,
    stable_seed,
)
from gopro.distributed import SINGLE_PROCESS, Ranks
from gopro.errors import InputError

SampleKey = tuple[int, int]
"""Epoch and index of a sample."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class ViewSettings:
    """Settings of the random views of one run."""

    preprocess: Preprocess
    crop: float = CROP
    """Smallest share of an image's area that a random view shows; see `gopro.data.images.transforms.make_view`."""
    bank: int = 0
    """Random views per image that all epochs and runs share: epoch e takes draw e mod `bank`, seeded by the image's
    content. 0: each run draws its own, new in each epoch, seeded by (seed, epoch, index)."""
    workers: int = 0
    """Processes that make views; 0 makes them in this process."""


class Batch(NamedTuple):
    """V views of B images."""

    views: Float[Tensor, "views batch 3 size size"]
    labels: Int[Tensor, " batch"]
    indices: Int[Tensor, " batch"]
    """Index of each image in the samples that the loader was made from."""


class _Views(Dataset[Item]):
    """Views with 8 bits per sample, a quarter of what worker processes would otherwise write and this one read."""

    preprocess: Preprocess

    def __getitems__(self, keys: Sequence[Any]) -> list[Item] | InputError:
        """Return a whole batch, or the InputError: raised in a worker, it would reach the user as a traceback."""
        try:
            return [self[key] for key in keys]
        except InputError as error:
            return error


class ImageViews(_Views[tuple[Tensor, int, int]]):
    """Samples as views: item (epoch, index) is (uint8 [views, 3, size, size], label, index)."""

    def __init__(self, samples: Sequence[Sample], views: Sequence[ViewName], settings: ViewSettings, seed: int = 0):
        self.samples, self.seed, self.bank, self.preprocess = samples, seed, settings.bank, settings.preprocess
        self.views = {name: make_pixel_view(name, settings.preprocess, settings.crop) for name in views}
        self.digests = [sample.image.digest() for sample in samples] if self.bank else []

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: SampleKey) -> tuple[Tensor, int, int]:
        epoch, index = key
        sample = self.samples[index]
        image = sample.image.open()
        seed = (self.digests[index], epoch % self.bank) if self.bank else (self.seed, epoch, index)
        views = [draw_view(view, image, *seed, name) for name, view in self.views.items()]
        return torch.stack(views), sample.label, index


class DrawnView(NamedTuple):
    """One random view of one image, seeded by the image's digest and the number of the draw."""

    image: ImageSource
    view: ViewName
    digest: str
    draw: int


class DrawnViews(_Views[Tensor]):
    """Single views: item i is uint8 [3, size, size]. Consecutive views of one image open it only once."""

    def __init__(self, drawn: Sequence[DrawnView], settings: ViewSettings) -> None:
        self.drawn, self.preprocess = drawn, settings.preprocess
        names: set[ViewName] = {view.view for view in drawn}
        self.views = {name: make_pixel_view(name, settings.preprocess, settings.crop) for name in names}
        self._last: tuple[ImageSource, Image.Image] | None = None

    def __len__(self) -> int:
        return len(self.drawn)

    def __getitem__(self, index: int) -> Tensor:
        image, name, digest, draw = self.drawn[index]
        if name == "eval":
            return self.views[name](open_verified(image, digest))
        if self._last is None or self._last[0] is not image:
            self._last = image, shrink_for_crops(open_verified(image, digest), self.preprocess.size)
        return draw_view(self.views[name], self._last[1], digest, draw, name)


class EpochBatches(Sampler[list[SampleKey]]):
    """Shuffled batches of sample keys, in an order that depends on (seed, epoch) alone. Set `epoch` to move on.

    A last batch of a single image is left out, unless batches of one were asked for: contrastive losses and batch
    statistics need two. Each epoch has an order of its own, so it is not always the same image that is left out.
    With several processes the batches stay the same, and each process yields its share of every batch.

    Args:
        drop_last: leave out any incomplete last batch, unless it is the only one; Dassl does.

    Raises:
        InputError: a batch size below 1, or a single image in all with batches of two or more.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        epoch: int = 0,
        *,
        drop_last: bool = False,
        ranks: Ranks = SINGLE_PROCESS,
    ) -> None:
        _check_batch_size(batch_size)
        self.count, self.batch_size, self.seed, self.epoch, self.ranks = count, batch_size, seed, epoch, ranks
        rest = count % batch_size
        incomplete_goes = drop_last and count > batch_size
        self.used = count - rest if incomplete_goes or (rest == 1 and batch_size > 1) else count
        if not self.used:
            raise InputError(f"{count} training images: give at least 2, or use --batch 1")

    def __len__(self) -> int:
        return -(-self.used // self.batch_size)

    def size(self, batch: int) -> int:
        """Count the images of a batch, over all processes."""
        return min(self.batch_size, self.used - batch * self.batch_size)

    def __iter__(self) -> Iterator[list[SampleKey]]:
        generator = torch.Generator().manual_seed(stable_seed(self.seed, self.epoch, "order"))
        keys = [(self.epoch, index) for index in torch.randperm(self.count, generator=generator).tolist()]
        batches = [keys[i : i + self.batch_size] for i in range(0, self.used, self.batch_size)]
        return iter([batch[self.ranks.share(len(batch))] for batch in batches])


class ImageLoader(DataLoader[Any]):
    """A DataLoader of views, which it normalises.

    It raises a worker's InputError unchanged, where DataLoader would wrap it in a traceback.
    """

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        for batch in super().__iter__():
            if isinstance(batch, InputError):
                # A copy: `batch` itself, raised, would refer to this frame and the frame to it, and such a cycle keeps
                # the workers alive until they are garbage-collected, which then waits for them for 5 s.
                raise InputError(str(batch))
            if isinstance(batch, Batch):
                yield batch._replace(views=normalize(batch.views, self.views.preprocess))
            else:
                yield normalize(batch, self.views.preprocess)

    def set_epoch(self, epoch: int) -> None:
        """Use the order and the draws of this epoch from the next iteration on. Training loaders only."""
        self.epoch_batches.epoch = epoch

    @property
    def views(self) -> _Views[Any]:
        """The views that are loaded."""
        assert isinstance(self.dataset, _Views)
        return self.dataset

    @property
    def epoch_batches(self) -> EpochBatches:
        """The batches of a training loader."""
        assert isinstance(self.batch_sampler, EpochBatches)
        return self.batch_sampler


def train_batches(
    samples: Sequence[Sample], views: Sequence[ViewName], settings: ViewSettings, batches: EpochBatches
) -> ImageLoader:
    """Load shuffled batches of views for one epoch; `set_epoch` moves the loader and its workers on to another.

    `load_into_memory` saves decoding the images in every epoch.

    Raises (while iterating):
        InputError: an image cannot be read.
    """
    return _loader(ImageViews(samples, views, settings, batches.seed), batches, settings.workers)


def eval_batches(samples: Sequence[Sample], preprocess: Preprocess, batch_size: int, workers: int = 0) -> ImageLoader:
    """Load all samples in order, as batches [1, batch, 3, size, size] of the evaluation view.

    Raises:
        InputError: a batch size below 1; while iterating, an image that cannot be read.
    """
    _check_batch_size(batch_size)
    keys = [(0, index) for index in range(len(samples))]
    batches = [keys[i : i + batch_size] for i in range(0, len(keys), batch_size)]
    return _loader(ImageViews(samples, ("eval",), ViewSettings(preprocess)), batches, workers)


def view_batches(drawn: Sequence[DrawnView], settings: ViewSettings, batch_size: int) -> ImageLoader:
    """Load single views in order, as batches [batch, 3, size, size].

    Raises:
        InputError: while iterating, an image that cannot be read or whose content is no longer that of the digest.
    """
    batches = BatchSampler(range(len(drawn)), batch_size, drop_last=False)
    return _loader(DrawnViews(drawn, settings), batches, settings.workers)


def _check_batch_size(batch_size: int) -> None:
    if batch_size < 1:
        raise InputError(f"batch size {batch_size}: give at least 1")


def _loader(
    dataset: ImageViews | DrawnViews,
    batches: Sampler[list[SampleKey]] | Sampler[list[int]] | list[list[SampleKey]],
    workers: int,
) -> ImageLoader:
    return ImageLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_collate if isinstance(dataset, ImageViews) else _stack,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # its own: otherwise iterating would draw a seed from the global generator
    )


def _collate(items: list[tuple[Tensor, int, int]] | InputError) -> Batch | InputError:
    if isinstance(items, InputError):
        return items
    views, labels, indices = zip(*items, strict=True)
    return Batch(torch.stack(views, dim=1), torch.tensor(labels), torch.tensor(indices))


def _stack(views: list[Tensor] | InputError) -> Tensor | InputError:
    return views if isinstance(views, InputError) else torch.stack(views)
