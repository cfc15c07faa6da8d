"""Run a measurement in a process of its own with a limit on its memory."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def run_isolated(limit_gib: float, function: Callable[..., T], *arguments: object) -> T | None:
    """Return a function's result from a new process, or None if that exceeds `limit_gib` of memory or is killed.

    The process's peak memory is therefore the function's own. If the whole machine runs out of memory all the same,
    this process is the first that Linux kills.
    """
    with ProcessPoolExecutor(1, get_context("spawn"), _limit_memory, (limit_gib,)) as pool:
        try:
            return pool.submit(function, *arguments).result()
        except (BrokenProcessPool, MemoryError):
            return None
        except RuntimeError as error:  # torch has no exception of its own for main memory
            if "allocate memory" not in str(error) and "out of memory" not in str(error):
                raise
            return None


def _limit_memory(limit_gib: float) -> None:
    with suppress(ImportError, OSError):  # Windows has neither
        import resource

        size = int(limit_gib * 2**30)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))
        Path("/proc/self/oom_score_adj").write_text("1000")
