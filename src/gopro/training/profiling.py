"""A profiler trace of a few training steps, for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from torch.profiler import profile, schedule

from gopro.training.progress import Progress, Step

TRACE = "trace.json"
FIRST, STEPS = 3, 3  # trace steps 3 to 5: the first two are slower than any later one


@contextmanager
def profiled(progress: Progress, folder: Path) -> Iterator[Progress]:
    """Write a trace of steps 3 to 5 to `folder/trace.json`.

    A step begins with the wait for its batch. A run of 3 or 4 steps is traced from the third on; a shorter one is not
    traced and a warning says so.

    Yields:
        The progress to report to instead of `progress`; it passes everything on.
    """
    path, steps = folder / TRACE, 0
    # The profiler counts from 0 and warms up for one step: wait for step 1, warm up in step 2, record steps 3, 4 and 5.
    plan = schedule(wait=FIRST - 2, warmup=1, active=STEPS, repeat=1)

    def export(profiler: profile) -> None:
        if steps >= FIRST:
            profiler.export_chrome_trace(str(path))

    with profile(schedule=plan, on_trace_ready=export, record_shapes=True) as profiler:

        def report_and_advance(step: Step) -> None:
            nonlocal steps
            progress.step(step)
            steps += 1
            profiler.step()

        yield replace(progress, step=report_and_advance)
    if steps < FIRST:
        warnings.warn(f"--profile: no step was traced, the run had fewer than {FIRST}", stacklevel=2)
