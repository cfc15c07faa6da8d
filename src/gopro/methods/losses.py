"""The losses of GOPro, each a plain function."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from gopro.clip.similarity import similarity


def nt_xent(
    a: Float[Tensor, "batch dim"],
    b: Float[Tensor, "batch dim"],
    temperature: float = 0.1,
    labels: Int[Tensor, " batch"] | None = None,
) -> Tensor:
    """NT-Xent between two views of a batch: an image's other view against all other images of both views.

    SimCLR (arXiv 2002.05709, equation 1) in SLIP's symmetric form. In fp32 whatever the inputs; they need not be
    normalised. With a batch of one image there is nothing to tell apart and the loss is 0.

    Args:
        labels: where given, all images of an image's class are on its side: the supervised contrastive loss (Khosla
            et al. 2020, arXiv 2004.11362, equation 2), which is NT-Xent where no class occurs twice.
    """
    both = F.normalize(torch.cat([a, b]).float(), dim=-1)  # [2B, dim]
    logits = (similarity(both, both) / temperature).fill_diagonal_(float("-inf"))
    if labels is None:
        labels = torch.arange(len(a), device=a.device)
    same = (labels[:, None] == labels).repeat(2, 2).fill_diagonal_(False)
    log_shares = logits.log_softmax(dim=-1).masked_fill(~same, 0)
    return -(log_shares.sum(dim=-1) / same.sum(dim=-1)).mean()


def prompt_consistency(text: Float[Tensor, "*batch dim"], view: Float[Tensor, "*#batch dim"]) -> Tensor:
    """Mean of 1 - cos between the text features that two views of an image generate, [batch, classes, dim] each.

    Takes unit vectors, for which 1 - cos is half their squared distance: D/2 times the element-wise mean of squares of
    the released code, whose gradient vanishes beside the cross-entropy's.
    """
    return (text.float() - view.float()).square().sum(-1).mean() / 2
