"""Calibration: whether a classifier that says 80 % is right in 80 % of the cases, and a temperature that makes it so.

Guo et al. 2017, "On calibration of modern neural networks" (arXiv 1706.04599): one number T, fitted on validation
images, divides all logits. It changes how sure a classifier is and never what it answers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import minimize_scalar
from torch import Tensor

from gopro.runs.calibration import TEMPERATURES

BINS = 15
"""Bins of equal width of the calibration error, as in Guo et al."""


@dataclass(frozen=True)
class Bin:
    """The predictions whose probability lies in one bin.

    Attributes:
        low, high: the bin, low < probability <= high, 0 to 1.
        images: number of predictions in it.
        confidence: their mean probability, in percent.
        accuracy: the share of them that is right, in percent.
    """

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class CalibrationError:
    """How far probabilities are from frequencies, on n images.

    Attributes:
        ece: expected calibration error in percentage points: the difference of a bin's confidence and accuracy,
            averaged over the predictions.
        nll: negative log-likelihood: the mean of −log p of the true class, in nats.
        confidence: mean probability of the predicted class, in percent.
        bins: those that hold predictions.
    """

    ece: float
    nll: float
    confidence: float
    bins: tuple[Bin, ...]

    @staticmethod
    def of(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"], temperature: float = 1.0) -> CalibrationError:
        """Compare the probabilities, softmax(logits / temperature), with the labels."""
        log_probabilities = (logits.double() / temperature).log_softmax(dim=-1)
        confidences, correct = log_probabilities.amax(dim=-1).exp(), logits.argmax(dim=-1) == labels
        numbers = (confidences * BINS).ceil().clamp(1, BINS).long() - 1
        bins = []
        for number in numbers.unique().tolist():
            inside = numbers == number
            confidence, accuracy = (100 * values[inside].double().mean().item() for values in (confidences, correct))
            bins.append(Bin(number / BINS, (number + 1) / BINS, int(inside.sum()), confidence, accuracy))
        return CalibrationError(
            ece=sum(bin.images * abs(bin.confidence - bin.accuracy) for bin in bins) / len(labels),
            nll=-log_probabilities.gather(1, labels[:, None]).mean().item(),
            confidence=100 * confidences.mean().item(),
            bins=tuple(bins),
        )


def fit_temperature(logits: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> float:
    """Return the temperature that maximises the likelihood of the labels.

    One more image is counted whose label is any of the classes equally often. It keeps the temperature away from 0
    where all images are right, which a few dozen often are; Platt (1999) smooths his targets for the same reason. With
    hundreds of images it does not matter.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[10.0, 0.0], [10.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
        >>> temperature = fit_temperature(logits, torch.tensor([0, 0, 1, 1]))  # 3 of 4 are right
        >>> f"{(logits[0] / temperature).softmax(0)[0]:.2f}"
        '0.70'
    """
    values = logits.double().numpy()
    values = values - values.max(axis=1, keepdims=True)
    true = values[np.arange(len(values)), labels.numpy()].sum()
    uniform = values.mean(axis=1)

    def loss(log_temperature: float) -> float:
        scale = math.exp(-log_temperature)
        normaliser = np.log(np.exp(scale * values).sum(axis=1))
        images = normaliser.sum() - scale * true
        one_more = (normaliser - scale * uniform).mean()  # an image like the others, with no answer
        return float(images + one_more)

    low, high = map(math.log, TEMPERATURES)
    found: Any = minimize_scalar(loss, bounds=(low, high), method="bounded")
    return round(math.exp(found.x), 4)
