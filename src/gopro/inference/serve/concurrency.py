"""A limit on how much is in progress at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gopro.inference.serve.errors import busy


class ConcurrencyLimit:
    """A counter of requests or images in progress that refuses more than `limit`.

    A semaphore would make clients wait instead. Not locked: for the event loop's thread only.
    """

    def __init__(self, noun: str, limit: int):
        self.noun, self.limit = noun, limit
        self.in_progress = 0

    @contextmanager
    def hold(self, count: int = 1) -> Iterator[None]:
        """Count `count` more as in progress while the block runs.

        Raises:
            RequestError: 503, because that would exceed the limit.
        """
        if self.in_progress + count > self.limit:
            raise busy(f"{self.in_progress} of at most {self.limit} {self.noun} are in progress")
        self.in_progress += count
        try:
            yield
        finally:
            self.in_progress -= count
