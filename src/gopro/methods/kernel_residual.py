"""A residual that is learned at some places of the unit sphere and fades away from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


class KernelResidual(nn.Module):
    """Σ_k exp(−sharpness · (1 − ⟨x, centre_k⟩)) · value_k for unit vectors x; zero at the start.

    A linear map that takes each training class to where its images are takes other classes somewhere as well. Here
    what is learned for a class holds for what is like it, and less the less it is like it: new classes are left to
    frozen CLIP as far as no trained class is near. It is a layer of Gaussian radial basis functions, the kernel that
    Tip-Adapter (arXiv 2111.03930) has around images, here around texts.

    Args:
        centres: unit vectors, [K, D]; kept with what is learned, so that a state says where its values stand.
    """

    def __init__(self, centres: Float[Tensor, "k dim"], sharpness: float):
        super().__init__()
        self.sharpness = sharpness
        self.centres: Tensor
        self.register_buffer("centres", centres)
        self.values = nn.Parameter(torch.zeros_like(centres))

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
        with torch.autocast(x.device.type, enabled=False):  # in half precision 1 - cos has no digits left
            near = (x.float() @ (self.sharpness * self.centres).T).sub_(self.sharpness).exp_()  # one tensor, not four
            return near @ self.values

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Makes room for as many centres as the state holds, which may be of other classes."""
        if (saved := state_dict.get(f"{prefix}centres")) is not None:
            self.centres = self.centres.new_empty(saved.shape)
            self.values.data = self.values.data.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)  # pyright: ignore[reportArgumentType]
