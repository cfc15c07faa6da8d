"""A measurement in a process of its own, which may not take more memory than it is given."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def apart(limit_gib: float, function: Callable[..., T], *arguments: object) -> T | None:
    """What the function returns in a new process; None where that runs out of `limit_gib` of memory or is killed.

    Its peak memory is so its own, and should the machine's memory end all the same, it is what Linux ends first.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _confine, (limit_gib,)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (BrokenProcessPool, MemoryError):
            return None
        except RuntimeError as error:  # torch's, which has no kind of its own for main memory
            if "allocate memory" not in str(error) and "out of memory" not in str(error):
                raise
            return None


def _confine(limit_gib: float) -> None:
    with suppress(ImportError, OSError):  # not on Windows
        import resource

        size = int(limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        Path("/proc/self/oom_score_adj").write_text("1000")
