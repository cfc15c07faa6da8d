"""Unit features and their dot products, from which logits and contrastive losses are made."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def unit_length(embedding: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch dim"]:
    """Scale a tower's output to unit length, in fp32."""
    return F.normalize(embedding.float(), dim=-1)


def similarity(
    x: Float[Tensor, "batch dim"], others: Float[Tensor, "n dim"] | Float[Tensor, "#batch n dim"]
) -> Float[Tensor, "batch n"]:
    """Return the dot products of each row of `x` with `others`, which all rows share or each has its own.

    The result is fp32 under autocast too: bf16 keeps 8 bits, so a cosine of 0.3 is off by up to 0.001, and a logit at
    scale 100 by up to 0.1.

    Example:
        >>> similarity(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        tensor([[11.,  2.]])
    """
    with torch.autocast(x.device.type, enabled=False):
        x, others = x.float(), others.float()
        return x @ others.T if others.ndim == 2 else torch.einsum("bd,bcd->bc", x, others)
