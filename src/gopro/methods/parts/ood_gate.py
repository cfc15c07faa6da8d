"""Out-of-distribution gate: a score of how closely an image resembles the training images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class OODGate(nn.Module):
    """The score min(1, max_c ⟨x, p_c⟩ / |p_c|²) of unit image features x, with p_c the mean training image of class c.

    The mean of ⟨x, p_c⟩ over the training images of class c is |p_c|². The score is therefore about 1 for images like
    them, in any feature space, and lower for other classes and styles. It is 1 before any image was added.

    Args:
        classes: number of trained classes.
        dim: D, size of the features.
    """

    def __init__(self, classes: int, dim: int):
        super().__init__()
        self.total: Tensor
        self.count: Tensor
        self.register_buffer("total", torch.zeros(classes, dim))
        self.register_buffer("count", torch.zeros(classes))

    @torch.no_grad()
    def add(self, x: Float[Tensor, "batch dim"], labels: Int[Tensor, " batch"]) -> None:
        """Add training images to the means of their classes; repeating all of them in each epoch changes no mean."""
        self.total.index_add_(0, labels, x.to(self.total))
        self.count.index_add_(0, labels, torch.ones_like(labels, dtype=self.count.dtype))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch"]:
        """Return a score between 0 and 1 per image."""
        with torch.autocast(x.device.type, enabled=False):
            has_images = self.count > 0
            means = self.total / self.count.clamp(min=1)[:, None]
            scores = x.float() @ (means / means.square().sum(dim=-1, keepdim=True).clamp(min=1e-12)).T
            highest = scores.where(has_images, 0.0).amax(dim=-1).clamp(0, 1)
            return highest.where(has_images.any(), 1.0)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Resize to the number of classes in the state."""
        if (saved := state_dict.get(f"{prefix}total")) is not None:
            self.total, self.count = self.total.new_empty(saved.shape), self.count.new_empty(len(saved))
        super()._load_from_state_dict(state_dict, prefix, *rest)  # pyright: ignore[reportArgumentType]
