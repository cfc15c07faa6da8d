"""Losses and gradients that are not finite: they are named, and nothing is learned from them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from gopro.errors import InputError
from gopro.runs.config import NonFinite

EVERY = 32  # steps between two looks at what a device has computed, each of which waits for it


class NonFiniteGuard:
    """Watches the steps of a run for losses and gradients that are not finite.

    To stop, it looks at the steps of a run a few at a time, so that no step waits for the device; what the steps in
    between have made of the weights is lost with the run, never saved. To skip, it must look at each step before the
    optimiser takes it.

    Args:
        last: the file of the last good state, and how to say so where there is none yet.

    Attributes:
        skipped: steps so far that were not taken.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], how: NonFinite, last: Path, skipped: int = 0):
        self.parameters, self.how, self.last, self.skipped = parameters, how, last, skipped
        self._seen: list[tuple[int, Mapping[str, Tensor], Tensor]] = []
        self._taken = False

    def allows(self, step: int, terms: Mapping[str, Tensor]) -> bool:
        """Whether the optimiser may take this step, whose gradients are there.

        Args:
            step: counted from 1.
            terms: the losses of the step, their total among them.

        Raises:
            InputError: this step or one shortly before it is not finite, and such steps are not skipped.
        """
        gradient = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.how == "skip":
            finite = bool(_figures(terms, gradient).isfinite().all())
            self.skipped += not finite
            self._taken |= finite
            return finite
        self._seen.append((step, terms, gradient))
        if len(self._seen) == EVERY:
            self._look()
        return True

    def end_epoch(self, epoch: int) -> None:
        """To be called before anything of an epoch is saved or judged.

        Raises:
            InputError: a step of it is not finite; where such steps are skipped, all of them were.
        """
        if self.how == "skip" and not self._taken:
            raise InputError(f"no step of epoch {epoch} was finite, all were skipped; {self._kept()}: use a lower --lr")
        self._taken = False
        if self._seen:
            self._look()

    def _look(self) -> None:
        figures = torch.stack([_figures(terms, gradient) for _, terms, gradient in self._seen])
        finite = figures.isfinite().all(dim=1)
        if not finite.all():
            step, terms, gradient = self._seen[int((~finite).nonzero()[0])]
            said = ", ".join(f"{name} {value.item():.3g}" for name, value in {**terms, "gradient": gradient}.items())
            raise InputError(
                f"the loss or its gradient is not finite at step {step} ({said}); {self._kept()}: use a lower --lr, or "
                "--non-finite skip to leave such steps out"
            )
        self._seen.clear()

    def _kept(self) -> str:
        return f"the last good state is {self.last}" if self.last.is_file() else "no epoch was finished before"


def _figures(terms: Mapping[str, Tensor], gradient: Tensor) -> Tensor:
    return torch.stack([terms["total"].to(gradient), gradient])


def check_learned(method: nn.Module) -> None:
    """That all of a method's tensors are finite.

    Raises:
        InputError: one is not; names it.
    """
    for name, tensor in method.state_dict().items():
        if not tensor.isfinite().all():
            raise InputError(f"what was learned is not finite ({name}), and is not saved: use a lower --lr")
