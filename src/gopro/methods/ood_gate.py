"""How familiar an image is: whether those that were trained on look like it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class OODGate(nn.Module):
    """min(1, max_c ⟨x, p_c⟩ / |p_c|²) for unit image features x, p_c being the mean over class c's training images.

    The mean of ⟨x, p_c⟩ over these is |p_c|², so it is about 1 for images like them, in any space of features, and
    lower for other classes and other styles. Before any image has been seen it is 1.

    Args:
        classes: how many are trained on.
        dim: D, size of the features.
    """

    def __init__(self, classes: int, dim: int):
        super().__init__()
        self.total: Tensor
        self.count: Tensor
        self.register_buffer("total", torch.zeros(classes, dim))
        self.register_buffer("count", torch.zeros(classes))

    @torch.no_grad()
    def see(self, x: Float[Tensor, "batch dim"], labels: Int[Tensor, " batch"]) -> None:
        """Takes training images into account; the same ones may come again in each epoch."""
        self.total.index_add_(0, labels, x.to(self.total))
        self.count.index_add_(0, labels, torch.ones_like(labels, dtype=self.count.dtype))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Between 0 and 1 for each."""
        with torch.autocast(x.device.type, enabled=False):
            seen = self.count > 0
            means = self.total / self.count.clamp(min=1)[:, None]
            near = x.float() @ (means / means.square().sum(dim=-1, keepdim=True).clamp(min=1e-12)).T
            highest = near.where(seen, 0.0).amax(dim=-1).clamp(0, 1)
            return highest.where(seen.any(), 1.0)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Makes room for as many classes as the state holds, which may be others."""
        if (saved := state_dict.get(f"{prefix}total")) is not None:
            self.total, self.count = self.total.new_empty(saved.shape), self.count.new_empty(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # pyright: ignore[reportArgumentType]
