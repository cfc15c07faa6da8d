"""How much memory a computation takes, by counting its tensors."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):
    """The most bytes (`peak`) that tensors made inside this context held at one time, backward included.

    The process's own peak would count the libraries and what the allocator keeps; this repeats to the byte.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._account((args, kwargs), made=False)
        out = func(*args, **(kwargs or {}))
        self._account(out, made=True)
        self.peak = max(self.peak, self.live)
        return out

    def _account(self, tensors: Any, made: bool) -> None:
        for tensor in tree_leaves(tensors):
            if isinstance(tensor, Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:  # a view has its base's storage
                    size = storage.nbytes() if made else 0
                    self._known.add(storage._cdata)
                    self.live += size
                    weakref.finalize(storage, self._freed, storage._cdata, size)

    def _freed(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size
