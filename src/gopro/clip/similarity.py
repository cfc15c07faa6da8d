"""Products of features, of which logits and contrastive losses are made."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def similarity(
    x: Float[Tensor, "batch dim"], others: Float[Tensor, "n dim"] | Float[Tensor, "#batch n dim"]
) -> Float[Tensor, "batch n"]:
    """Dot products of each x with others, which are the same for all or each one's own.

    In fp32 under autocast too: rounded to bf16, a cosine of 0.3 at a logit scale of 100 is off by as much as 0.1.
    """
    with torch.autocast(x.device.type, enabled=False):
        x, others = x.float(), others.float()
        return x @ others.T if others.ndim == 2 else torch.einsum("bd,bcd->bc", x, others)
