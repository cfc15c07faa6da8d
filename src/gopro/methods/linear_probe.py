"""Linear probe: logistic regression on frozen image features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.methods.base import Method
from gopro.methods.parts.logistic_regression import logistic_regression
from gopro.methods.recipe import Training
from gopro.methods.template import DEFAULT_TEMPLATE
from gopro.settings import PositiveFloat, settings

DEFAULT_C = 31.6
"""CLIP's example uses 0.316 for features of length about 10. Ours have length 1, and C scales with 1 / length²."""


@settings
class LinearProbeConfig:
    """Settings of `linear-probe`."""

    template: str | None = None
    """Unused, as no text is read; every method has this setting."""
    c: PositiveFloat | None = None
    """Inverse strength of the L2 penalty, as in scikit-learn; by default the best on the validation images, or 31.6
    if there are none."""


class LinearProbe(Method):
    """CLIP's linear probe (Radford et al. 2021, arXiv 2103.00020, appendix A.3; repository openai/CLIP).

    Learned: a weight vector and a bias per class, [classes, D + 1], that minimise the cross-entropy summed over the
    training images plus 1 / 2C times the squared weights (L-BFGS, at most 1000 iterations). The search for C is the
    paper's: from 1e-6 to 1e6 in steps of two decades, then around the best down to an eighth of a decade. There is no
    Base/New/HM: it has no weights for a class that was not trained on, `for_classes` raises InputError, and
    base-to-new records the run as failed on the new classes.

    Differences from CLIP: the features are the unit embeddings that text is compared with, where CLIP's example keeps
    their length and its paper uses ViT features before the projection; among equally good C the strongest penalty wins.
    """

    trained_by = Training.CLOSED_FORM
    config: LinearProbeConfig = LinearProbeConfig()

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: LinearProbeConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        self.weight = nn.Parameter(torch.zeros(len(classnames), backbone.embed_dim))
        self.bias = nn.Parameter(torch.zeros(len(classnames)))

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        reason = "a linear probe reads no names; use a method that does, such as zeroshot or tip-adapter"
        self.rows = self.require_trained_rows(classnames, reason)

    def solve(
        self,
        draws: Callable[[int], Iterable[Encoded]],
        labels: Int[Tensor, " n"],
        val: tuple[Encoded, Tensor] | None = None,
    ) -> None:
        [images] = draws(0)
        classes = len(self.trained_names)
        if self.config.c is not None or val is None:
            best = logistic_regression(images.embedding, labels, classes, self.config.c or DEFAULT_C)
        else:
            best = _search(images.embedding, labels, classes, val[0].embedding, val[1])
        self.weight.data, self.bias.data = best[0].to(self.weight), best[1].to(self.bias)

    def image_vectors(self, encoded: Encoded) -> Float[Tensor, "batch dim"]:
        """Return the embeddings and a 1 behind them, the factor of the biases."""
        return F.pad(encoded.embedding, (0, 1), value=1.0)

    def class_vectors(self, contexts: None = None) -> Float[Tensor, "1 classes dim"]:
        """Return weights and biases, divided by the scale that `logits` multiplies with."""
        learned = torch.cat([self.weight, self.bias[:, None]], dim=-1)
        return learned[None, self.rows] / self.backbone.logit_scale


def _search(
    features: Tensor, labels: Tensor, classes: int, val: Float[Tensor, "val dim"], val_labels: Int[Tensor, " val"]
) -> tuple[Tensor, Tensor]:
    """Fit the regression whose C is best on the validation images."""
    tried: dict[float, tuple[int, tuple[Tensor, Tensor]]] = {}

    def best(exponents: Iterable[float]) -> float:
        for exponent in exponents:
            if exponent not in tried:
                weight, bias = logistic_regression(features, labels, classes, 10.0**exponent)
                correct = int(((val.double() @ weight.T + bias).argmax(dim=-1) == val_labels).sum())
                tried[exponent] = correct, (weight, bias)
        return max(tried, key=lambda exponent: (tried[exponent][0], -exponent))

    peak, step = best(range(-6, 7, 2)), 2.0
    while step > 1 / 8:
        step /= 2
        peak = best((peak - step, peak + step))
    return tried[peak][1]
