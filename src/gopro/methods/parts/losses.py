"""Self-supervised losses, each a plain function."""

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
    """Compute NT-Xent between two views of a batch: the other view of each image against all other images.

    SimCLR (arXiv 2002.05709, equation 1) in the symmetric form of SLIP. The features need not be unit vectors, and the
    loss is computed in fp32. A batch of one image has nothing to contrast with: its loss is 0.

    Args:
        labels: if given, all images of the same class are positives: the supervised contrastive loss (Khosla et al.
            2020, arXiv 2004.11362, equation 2). It equals NT-Xent if no class occurs twice.
    """
    both = F.normalize(torch.cat([a, b]).float(), dim=-1)  # [2B, dim]
    logits = (similarity(both, both) / temperature).fill_diagonal_(float("-inf"))
    if labels is None:
        labels = torch.arange(len(a), device=a.device)
    positive = (labels[:, None] == labels).repeat(2, 2).fill_diagonal_(False)
    log_probabilities = logits.log_softmax(dim=-1).masked_fill(~positive, 0)
    return -(log_probabilities.sum(dim=-1) / positive.sum(dim=-1)).mean()


def prompt_consistency(text: Float[Tensor, "*batch dim"], other: Float[Tensor, "*#batch dim"]) -> Tensor:
    """Compute the mean of 1 - cos between unit features, such as the text features of two views [batch, classes, dim].

    For unit vectors 1 - cos is half the squared distance, D/2 times the element-wise mean of squares of the released
    code, whose gradient is negligible beside the cross-entropy's.
    """
    return (text.float() - other.float()).square().sum(-1).mean() / 2
