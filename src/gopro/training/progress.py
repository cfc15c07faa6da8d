"""Progress reports of a training run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the command line imports this module before it knows that it needs torch
    from torch import Tensor


@dataclass(frozen=True)
class Step:
    """One batch that a run has trained on.

    Attributes:
        step: number of the batch in the whole run, from 1.
        steps: batches of the whole run.
        epoch: from 0.
        lr: learning rate.
        terms: the weighted losses by name, and their sum as `total`. They are still on the device, and reading one
            waits for it.
    """

    step: int
    steps: int
    epoch: int
    lr: float
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Epoch:
    """An epoch that a run has finished and saved.

    Attributes:
        epoch: from 0.
        epochs: epochs of the whole run.
        batches: for each batch of the epoch, the learning rate as `lr`, the weighted losses by name, and their sum as
            `total`.
        seconds: time that the run has trained so far, interrupted runs included.
        val: accuracy on the validation images in percent; None if the run does not look at them.
    """

    epoch: int
    epochs: int
    batches: Sequence[dict[str, float]]
    seconds: float
    val: float | None

    @property
    def loss(self) -> float:
        """The mean of the batches' total losses."""
        return sum(batch["total"] for batch in self.batches) / len(self.batches)

    @property
    def seconds_left(self) -> float:
        return self.seconds / (self.epoch + 1) * (self.epochs - self.epoch - 1)


@dataclass(frozen=True)
class Progress:
    """Three functions that a run calls as it proceeds; none does anything by default.

    Attributes:
        step: called after every batch.
        epoch: called after every epoch.
        fill: called with the number of views in the view bank so far and the number it will hold.

    Example:
        >>> Progress(fill=lambda done, total: print(f"{done} of {total} views")).fill(64, 430)
        64 of 430 views
    """

    step: Callable[[Step], None] = lambda step: None
    epoch: Callable[[Epoch], None] = lambda epoch: None
    fill: Callable[[int, int], None] = lambda done, total: None


NO_PROGRESS = Progress()
