"""Multinomial logistic regression on features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def logistic_regression(
    features: Float[Tensor, "n dim"],
    labels: Int[Tensor, " n"] | Float[Tensor, "n classes"],
    classes: int,
    c: float,
    *,
    offset: Float[Tensor, "n classes"] | None = None,
    fixed: int = 0,
    tolerance: float = 1e-9,
) -> tuple[Float[Tensor, "classes dim"], Float[Tensor, " classes"]]:
    """Fit a multinomial logistic regression with an L2 penalty on the weights, in float64 (L-BFGS).

    Args:
        labels: of the images, or their probabilities.
        c: factor of the summed cross-entropy against half the squared weights, as in scikit-learn.
        offset: logits of another classifier, to which those of the regression are added. The weights then learn what
            that classifier gets wrong.
        fixed: the first so many classes have their offset alone; their weights and biases stay 0.
        tolerance: L-BFGS ends when the mean loss changes by less.

    Returns:
        Weights and biases.

    Example:
        >>> weight, bias = logistic_regression(torch.eye(2), torch.tensor([0, 1]), classes=2, c=1.0)
        >>> (torch.eye(2).double() @ weight.T + bias).argmax(dim=1)
        tensor([0, 1])
    """
    features = features.double()
    start = 0.0 if offset is None else offset.double()
    learned = features.new_zeros(classes - fixed, features.shape[1] + 1, requires_grad=True)
    labels = labels.double() if labels.is_floating_point() else labels
    optimizer = torch.optim.LBFGS(
        [learned],
        max_iter=1000,
        tolerance_grad=100 * tolerance,
        tolerance_change=tolerance,
        history_size=10,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        weight, bias = learned[:, :-1], learned[:, -1]
        logits = start + F.pad(features @ weight.T + bias, (fixed, 0))
        mean = F.cross_entropy(logits, labels) + weight.square().sum() / (2 * c * len(labels))
        mean.backward()
        return mean

    with torch.enable_grad():
        optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    learned = F.pad(learned.detach(), (0, 0, fixed, 0))
    return learned[:, :-1], learned[:, -1]
