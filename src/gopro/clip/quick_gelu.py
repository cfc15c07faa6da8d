"""OpenAI's activation at the price of torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import QuickGELU
from torch import Tensor, nn


class FusedQuickGELU(nn.Module):
    """x · sigmoid(1.702 x), as one SiLU: silu(1.702 x) / 1.702.

    open_clip writes the product out, of which autograd keeps both factors; of this it keeps one tensor.
    """

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(1.702 * x, inplace=not torch.is_grad_enabled()).mul_(1 / 1.702)


def fuse_quick_gelu(model: nn.Module) -> None:
    """Puts `FusedQuickGELU` in the place of every QuickGELU of the model. It has no weights."""
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, QuickGELU):
                setattr(module, name, FusedQuickGELU())
