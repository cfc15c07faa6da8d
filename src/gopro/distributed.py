"""Data-parallel training: the rank of this process, its share of each batch, and the collective operations.

Several processes take every training step together and get the result that one process would get from the whole batch.
Each computes its losses as means over its own images and the gradients are averaged over the processes, so each loss is
weighted by the process's share of the batch. Code that compares images with one another (a contrastive loss) or keeps
statistics of the images needs the whole batch and calls `gather`.
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
    """The rank of this process among all processes of a run.

    Attributes:
        rank: from 0; only rank 0 writes files.
        count: the number of processes on all machines together.

    Example:
        >>> batch = ["a", "b", "c", "d", "e"]
        >>> [batch[Ranks(rank, 2).share(len(batch))] for rank in (0, 1)]
        [['a', 'b'], ['c', 'd', 'e']]
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, images: int) -> slice:
        """Return the slice of a batch of `images` that this process works on.

        The shares differ by at most one image. A batch with fewer images than processes goes to every process whole, so
        that none has an empty share.
        """
        if images < self.count:
            return slice(0, images)
        return slice(self.rank * images // self.count, (self.rank + 1) * images // self.count)

    @contextmanager
    def batch(self, images: int) -> Iterator[float]:
        """Make `gather` join the shares of a batch of `images` while its losses are computed.

        Yields:
            The weight of this process's losses: the mean over processes of the weighted losses is the batch's loss.
        """
        share = self.share(images)
        divided = self.count > 1 and images >= self.count
        token = _share.set(_Share(share.start, share.stop, images) if divided else None)
        try:
            yield (share.stop - share.start) * self.count / images if divided else 1.0
        finally:
            _share.reset(token)

    def mean(self, terms: Mapping[str, Tensor], weight: float) -> dict[str, Tensor]:
        """Return the losses of the batch, bit for bit the same in every process, from this process's `terms`."""
        if self.count == 1:
            return dict(terms)
        values = weight / self.count * torch.stack([term.float() for term in terms.values()])
        dist.all_reduce(values)
        return dict(zip(terms, values.unbind(), strict=True))

    def average_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Replace every gradient by its mean over the processes, with a single all-reduce.

        This takes the place of torch's DistributedDataParallel, which insists on a gradient for every parameter and
        changes the order of its sums after the first step, so that a resumed run would not end with the same bits.
        Overlapping communication with backward, which DistributedDataParallel does, would gain nothing: the gradients
        are few, and those of the prompts are the last to be computed.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if self.count == 1 or not gradients:
            return
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        means = (flat / self.count).split([gradient.numel() for gradient in gradients])
        for gradient, mean in zip(gradients, means, strict=True):
            gradient.copy_(mean.view_as(gradient))

    def broadcast(self, value: T) -> T:
        """Return rank 0's `value` in every process."""
        if self.count == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]

    def barrier(self) -> None:
        """Wait until every process has called this."""
        if self.count > 1:
            dist.barrier()


SINGLE_PROCESS = Ranks()


@dataclass(frozen=True)
class _Share:
    """The images `start:stop` of a batch of `images`, those of this process."""

    start: int
    stop: int
    images: int


_share: ContextVar[_Share | None] = ContextVar("share", default=None)


def gather(x: Shaped[Tensor, "share ..."]) -> Shaped[Tensor, "batch ..."]:
    """Return the rows of the whole batch, in the order of its images, with gradients to every process's share.

    Outside `Ranks.batch`, and in a single process, this returns `x` itself. All processes must call it.
    """
    share = _share.get()
    return x if share is None else _Gather.apply(x, share)


class _Gather(torch.autograd.Function):
    """All-gather for shares of unequal size, which not every backend's all-gather supports.

    Each process writes its rows into a tensor of zeros and the tensors are summed, which is exact: x + 0 = x.
    """

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
