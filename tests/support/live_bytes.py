"""Measure the memory of a computation by counting its tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """The peak bytes of tensors created inside this context, backward included.

    Unlike the peak memory of the process, it excludes libraries and the allocator's reserve, and repeats to the byte.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._count((args, kwargs), created=False)
        out = func(*args, **(kwargs or {}))
        self._count(out, created=True)
        self.peak = max(self.peak, self.live)
        return out

    def _count(self, tensors: Any, created: bool) -> None:
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:  # a view shares its base's storage
                    size = storage.nbytes() if created else 0
                    self._known.add(storage._cdata)
                    self.live += size
                    weakref.finalize(storage, self._freed, storage._cdata, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
