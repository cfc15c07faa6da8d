"""RBF residual: a correction learned at some points of the unit sphere that decays with the distance from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class KernelResidual(nn.Module):
    """The layer x ↦ Σ_k exp(−sharpness · (1 − ⟨x, centre_k⟩)) · value_k for unit vectors x; zero at initialisation.

    A linear map that moves the text feature of each trained class towards its images also moves every other text
    feature. Here a correction applies to the texts near a trained class, so that a new class keeps its zero-shot
    feature unless a trained class is close to it. The layer is a Gaussian radial basis function network; Tip-Adapter
    (arXiv 2111.03930) uses the same kernel around images.

    Args:
        centres: unit vectors, [K, D]; a buffer, so that a state dict holds the position of each value.
        sharpness: decay of the corrections.
    """

    def __init__(self, centres: Float[Tensor, "k dim"], sharpness: float):
        super().__init__()
        self.sharpness = sharpness
        self.centres: Tensor
        self.register_buffer("centres", centres)
        self.values = nn.Parameter(torch.zeros_like(centres))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        with torch.autocast(x.device.type, enabled=False):  # bf16 rounds cosines near 1 to multiples of 2^-8
            # In place: one tensor of [*batch, K] instead of four.
            weights = (x.float() @ (self.sharpness * self.centres).T).sub_(self.sharpness).exp_()
            return weights @ self.values

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Resize to the number of centres in the state, which may be of other classes."""
        if (saved := state_dict.get(f"{prefix}centres")) is not None:
            self.centres = self.centres.new_empty(saved.shape)
            self.values.data = self.values.data.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)  # pyright: ignore[reportArgumentType]
