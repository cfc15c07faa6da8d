"""The guard against losses and gradients that are NaN or infinite."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from gopro.errors import InputError
from gopro.runs.config import NonFinite

CHECK_EVERY = 32
"""Steps between two checks. Reading a loss makes the host wait for the GPU, so a check in each step would leave the GPU
idle between steps."""


class _Step(NamedTuple):
    number: int
    terms: Mapping[str, Tensor]
    gradient_norm: Tensor

    def figures(self) -> Tensor:
        return torch.stack([self.terms["total"].to(self.gradient_norm), self.gradient_norm])


class NonFiniteGuard:
    """Stops a run at a loss or gradient that is not finite, or skips the step.

    With `stop`, steps are checked `CHECK_EVERY` at a time and at the end of an epoch. Nothing is saved in between, so
    that the damage an unchecked step does to the weights is lost with the run. With `skip`, each step is checked before
    the optimiser takes it.

    Args:
        parameters: the trained parameters.
        action: `stop` or `skip`.
        resume_file: where the state after the last finished epoch is saved, to name it in messages.
        skipped: steps skipped before the run was resumed.

    Attributes:
        skipped: steps skipped so far.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], action: NonFinite, resume_file: Path, skipped: int = 0):
        self.parameters, self.action, self.resume_file, self.skipped = parameters, action, resume_file, skipped
        self._unchecked: list[_Step] = []
        self._epoch_has_step = False

    def allows(self, step: int, terms: Mapping[str, Tensor]) -> bool:
        """Return whether the optimiser may take this step, whose gradients have been computed.

        Args:
            step: its number, from 1.
            terms: its losses, `total` among them.

        Raises:
            InputError: this step or a recent one is not finite and the action is `stop`.
        """
        taken = _Step(step, terms, get_total_norm([p.grad for p in self.parameters if p.grad is not None]))
        if self.action == "skip":
            finite = bool(taken.figures().isfinite().all())
            self.skipped += not finite
            self._epoch_has_step |= finite
            return finite
        self._unchecked.append(taken)
        if len(self._unchecked) == CHECK_EVERY:
            self._check()
        return True

    def end_epoch(self, epoch: int) -> None:
        """Check the remaining steps of an epoch. Call this before the epoch is evaluated or saved.

        Raises:
            InputError: a step is not finite and the action is `stop`; all steps of the epoch were skipped.
        """
        if self.action == "skip" and not self._epoch_has_step:
            raise InputError(
                f"all steps of epoch {epoch} were skipped, none was finite; {self._last_state()}: use a lower --lr"
            )
        self._epoch_has_step = False
        if self._unchecked:
            self._check()

    def _check(self) -> None:
        finite = torch.stack([step.figures() for step in self._unchecked]).isfinite().all(dim=1)
        if not finite.all():
            step = self._unchecked[int((~finite).nonzero()[0])]
            figures = {**step.terms, "gradient": step.gradient_norm}
            values = ", ".join(f"{name} {value.item():.3g}" for name, value in figures.items())
            raise InputError(
                f"the loss or its gradient is not finite at step {step.number} ({values}); {self._last_state()}: use a "
                "lower --lr, or --non-finite skip to skip such steps"
            )
        self._unchecked.clear()

    def _last_state(self) -> str:
        if self.resume_file.is_file():
            return f"the state after the last finished epoch is in {self.resume_file}"
        return "no epoch was finished before"


def check_learned(method: nn.Module) -> None:
    """Raise InputError, naming the tensor, if a learned tensor is not finite."""
    for name, tensor in method.state_dict().items():
        if not tensor.isfinite().all():
            raise InputError(f"the learned tensor {name} is not finite and is not saved: use a lower --lr")
