"""A least-recently-used cache that threads share."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from threading import Lock
from typing import TypeVar

from cachetools import LRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class SharedLRUCache(LRUCache[K, V]):
    """`cachetools.LRUCache` bounded in bytes, with a lock around `get` and `put`.

    The lock is needed even for `get`: another thread may drop the entry between finding it and marking it as used.
    """

    def __init__(self, max_bytes: int, size: Callable[[V], int]):
        super().__init__(max_bytes, size)
        self._lock = Lock()

    def get(self, key: K, default: None = None) -> V | None:
        with self._lock:
            return super().get(key)

    def put(self, key: K, value: V) -> None:
        """Store a value unless it is larger than the whole cache."""
        with self._lock, suppress(ValueError):
            self[key] = value
