"""What was used last, as much of it as fits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LRU(Generic[K, V]):
    """Values by key, those dropped that were not used for longest. For any thread.

    Attributes:
        most: bytes that all values may take together; a value that takes more by itself is not kept.
        held: bytes that they take.
    """

    def __init__(self, most: int, size: Callable[[V], int]):
        self.most, self._size = most, size
        self.held = 0
        self._values: OrderedDict[K, V] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: K) -> V | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: K, value: V) -> None:
        with self._lock:
            if (old := self._values.pop(key, None)) is not None:
                self.held -= self._size(old)
            if (size := self._size(value)) > self.most:
                return
            self._values[key] = value
            self.held += size
            while self.held > self.most:
                self.held -= self._size(self._values.popitem(last=False)[1])
