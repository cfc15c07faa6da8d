"""Where the time of a training step goes: a trace of a few steps, for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import profile, schedule

from gopro.training.loop import Step

TRACE = "trace.json"
FIRST, STEPS = 3, 3  # the steps traced: the first two are slower than any later one


@contextmanager
def traced(folder: Path, on_step: Callable[[Step], None]) -> Iterator[Callable[[Step], None]]:
    """What is to be called after every step instead of `on_step`, so that steps 3 to 5 are in `folder/trace.json`.

    A step begins with the wait for its batch. Of a shorter run there are those from the third on; where there is none,
    a warning says so.
    """
    path, steps = folder / TRACE, 0
    when = schedule(wait=FIRST - 2, warmup=1, active=STEPS, repeat=1)

    def export(profiler: profile) -> None:
        if steps >= FIRST:
            profiler.export_chrome_trace(str(path))

    with profile(schedule=when, on_trace_ready=export, record_shapes=True) as profiler:

        def on_step_and_profile(step: Step) -> None:
            nonlocal steps
            on_step(step)
            steps += 1
            profiler.step()

        yield on_step_and_profile
    if steps < FIRST:
        warnings.warn(f"--profile: no step was traced, there were fewer than {FIRST}", stacklevel=2)
