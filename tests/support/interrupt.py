"""Interrupt a run within the test's own process, as a stand-in for a kill."""

from __future__ import annotations

from collections.abc import Callable

from gopro.training.progress import Step


class Cut(Exception):
    """Ends a run from its `on_step`."""


def cut_in(epoch: int) -> Callable[[Step], None]:
    """Return an `on_step` that interrupts the run after the first batch of an epoch."""

    def on_step(step: Step) -> None:
        if step.epoch == epoch:
            raise Cut

    return on_step
