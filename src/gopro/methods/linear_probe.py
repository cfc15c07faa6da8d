"""Linear probe: logistic regression on frozen image features."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.recipe import Training
from gopro.settings import PositiveFloat, settings

DEFAULT_C = 31.6
"""The 0.316 of CLIP's example, whose features are about 10 long where ours are 1: C goes with 1 / length squared."""


@settings
class LinearProbeConfig:
    """Settings of `linear-probe`."""

    template: str | None = None
    """No text is read: it is here because every method has one."""
    c: PositiveFloat | None = None
    """Inverse strength of the L2 penalty, as scikit-learn has it; if not given the best on the validation images,
    or 31.6 where there are none."""


class LinearProbe(Method):
    """CLIP's linear probe (Radford et al. 2021, arXiv 2103.00020, appendix A.3; repository openai/CLIP).

    Learned: a weight vector and a bias for each class, [classes, D + 1], where the cross-entropy summed over the
    training images plus the squared weights by 1 / 2C is least (L-BFGS, at most 1000 iterations). C is searched for
    as the paper says, from 1e-6 to 1e6 by two decades and then around the best down to an eighth of a decade.
    Base/New/HM are not published and cannot be: for a class name that it was not trained on it has no weights, and
    `for_classes` raises InputError, so that base-to-new records the run as failed at its new half.

    Ours departs from CLIP in the features, which are the unit embeddings that the text is compared with: CLIP's example
    leaves their length, its paper takes ViT features before the projection. Of equally good C the strongest penalty is
    taken.
    """

    trained_by = Training.CLOSED_FORM
    config: LinearProbeConfig = LinearProbeConfig()

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: LinearProbeConfig):
        super().__init__(backbone, classnames, config)
        self.weight = nn.Parameter(torch.zeros(len(classnames), backbone.embed_dim))
        self.bias = nn.Parameter(torch.zeros(len(classnames)))
        self.trained, self.rows = self.classnames, list(range(len(classnames)))

    def for_classes(self, classnames: Sequence[str]) -> Self:
        """The same classifier over some of the classes that it was trained on, in any order.

        Raises:
            InputError: a name that it was not trained on.
        """
        unknown = [name for name in classnames if name not in self.trained]
        if unknown:
            raise InputError(
                f"a linear probe knows no class names but those it was trained on, and {unknown[0]!r} is not among "
                "them: use a method that reads names, zeroshot or tip-adapter"
            )
        other = super().for_classes(classnames)
        other.rows = [self.trained.index(name) for name in classnames]
        return other

    def solve(
        self, draws: Iterable[Encoded], labels: Int[Tensor, " n"], val: tuple[Encoded, Tensor] | None = None
    ) -> None:
        [draw] = draws
        classes = len(self.trained)
        if self.config.c is not None or val is None:
            best = logistic_regression(draw.embedding, labels, classes, self.config.c or DEFAULT_C)
        else:
            best = _searched(draw.embedding, labels, classes, val[0].embedding, val[1])
        self.weight.data, self.bias.data = best[0].to(self.weight), best[1].to(self.bias)

    def class_features(self, encoded: Encoded) -> Float[Tensor, "#batch classes embed"]:
        """Not to be had.

        Raises:
            InputError: always.
        """
        raise InputError(f"{type(self).__name__} compares images with no text: there are no text features")

    def image_vectors(self, encoded: Encoded) -> Float[Tensor, "batch dim"]:
        """The embeddings, and behind them the 1 that the biases are multiplied with."""
        return F.pad(encoded.embedding, (0, 1), value=1.0)

    def class_vectors(self, contexts: None = None) -> Float[Tensor, "1 classes dim"]:
        """Weights and biases, on the scale of the logits."""
        learned = torch.cat([self.weight, self.bias[:, None]], dim=-1)
        return learned[None, self.rows] / self.backbone.logit_scale


def logistic_regression(
    features: Float[Tensor, "n dim"], labels: Int[Tensor, " n"], classes: int, c: float
) -> tuple[Float[Tensor, "classes dim"], Float[Tensor, " classes"]]:
    """Weights and biases of the multinomial logistic regression with an L2 penalty on the weights, in float64.

    Args:
        c: weight of the summed cross-entropy against half the squared weights, as scikit-learn has it.
    """
    features = features.double()
    learned = features.new_zeros(classes, features.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([learned], max_iter=1000, history_size=10, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        weight, bias = learned[:, :-1], learned[:, -1]
        mean = F.cross_entropy(features @ weight.T + bias, labels) + weight.square().sum() / (2 * c * len(labels))
        mean.backward()
        return mean

    with torch.enable_grad():
        optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    return learned.detach()[:, :-1], learned.detach()[:, -1]


def _searched(
    features: Tensor, labels: Tensor, classes: int, val: Float[Tensor, "val dim"], val_labels: Int[Tensor, " val"]
) -> tuple[Tensor, Tensor]:
    """The regression whose C is best on validation images."""
    tried: dict[float, tuple[int, tuple[Tensor, Tensor]]] = {}

    def best(exponents: Iterable[float]) -> float:
        for exponent in exponents:
            if exponent not in tried:
                weight, bias = logistic_regression(features, labels, classes, 10.0**exponent)
                right = int(((val.double() @ weight.T + bias).argmax(dim=-1) == val_labels).sum())
                tried[exponent] = right, (weight, bias)
        return max(tried, key=lambda exponent: (tried[exponent][0], -exponent))

    peak, step = best(range(-6, 7, 2)), 2.0
    while step > 1 / 8:
        step /= 2
        peak = best((peak - step, peak + step))
    return tried[peak][1]
