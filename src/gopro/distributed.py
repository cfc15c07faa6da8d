"""Several processes that step together, each on its share of every batch, as one process would on the whole of it.

A process's losses are means over its own images, and the gradients are averaged over the processes: so each is
weighted by its share. What compares images with one another, or remembers those that it has seen, takes the whole
batch, by `gather`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from jaxtyping import Shaped
from torch import Tensor, nn

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is.

    Attributes:
        rank: counted from 0; the first is the one that writes.
        count: of all machines together.
    """

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, images: int) -> slice:
        """Which images of a batch are this process's. Shares differ by one at most; of fewer images than processes
        each takes all, so that none is without."""
        if images < self.count:
            return slice(0, images)
        return slice(self.rank * images // self.count, (self.rank + 1) * images // self.count)

    @contextmanager
    def batch(self, images: int) -> Iterator[float]:
        """While the losses of a batch of so many images are computed: `gather` joins the shares.

        Yields: what this process's losses weigh, so that their mean over the processes is that of the batch.
        """
        share = self.share(images)
        divided = self.count > 1 and images >= self.count
        token = _share.set(_Share(share.start, share.stop, images) if divided else None)
        try:
            yield (share.stop - share.start) * self.count / images if divided else 1.0
        finally:
            _share.reset(token)

    def mean(self, terms: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """The losses of the batch from those of each process; the same bits in all of them."""
        if self.count == 1:
            return dict(terms)
        values = weight / self.count * torch.stack([term.float() for term in terms.values()])
        dist.all_reduce(values)
        return dict(zip(terms, values.unbind(), strict=True))

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Gives all processes the mean of their gradients, by one sum of all of them.

        What torch's DistributedDataParallel is for, without what it asks for in return: parameters that a setting
        leaves without a gradient stay so, and the order of the sums is the same from the first step on, so that a run
        that was cut ends with the bits of one that was not. There is nothing to be gained by sending the first
        gradients while the last are computed: they are few, and those of the prompts come last.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        means = (together / self.count).split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def agree(self, value: T) -> T:
        """The first process's value, for all of them."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.count > 1:
            dist.barrier()


SINGLE_PROCESS = Ranks()
"""A single process."""


@dataclass(frozen=True)
class _Share:
    """Where this process's images stand in the batch, and how many that has."""

    start: int
    stop: int
    images: int


_share: ContextVar[_Share | None] = ContextVar("share", default=None)


def gather(x: Shaped[Tensor, "share ..."]) -> Shaped[Tensor, "batch ..."]:
    """What all processes have of a batch, in the order of its images, with gradients to each of them.

    The argument itself where nothing is shared: in a single process, in evaluation. All processes must come by here.
    """
    share = _share.get()
    return x if share is None else _Gather.apply(x, share)


class _Gather(torch.autograd.Function):
    """By a sum of shares that are 0 where the others stand: exact, for shares of any size, with any backend."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, share: _Share) -> Tensor:
        ctx.share = share
        whole = x.new_zeros(share.images, *x.shape[1:])
        whole[share.start : share.stop] = x
        dist.all_reduce(whole)
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient[ctx.share.start : ctx.share.stop], None
