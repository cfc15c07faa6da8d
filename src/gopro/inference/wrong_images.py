"""The images of an evaluation that were labelled wrong, the surest first."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gopro.data.dataset import ImageSource, Sample
from gopro.files import write_atomically
from gopro.inference.evaluate import Evaluation


@dataclass(frozen=True)
class WrongImage:
    """An image that was labelled `predicted` instead of `truth`.

    Attributes:
        probability: that of the predicted class, 0 to 1.
        truth_probability: that of the true class, 0 to 1.
    """

    image: ImageSource
    truth: str
    predicted: str
    probability: float
    truth_probability: float


def wrong_images(evaluation: Evaluation, samples: Sequence[Sample]) -> list[WrongImage]:
    """Return the wrong answers of an evaluation, the one with the highest probability first.

    Args:
        samples: the images that were evaluated, in their order.
    """
    names, probabilities = evaluation.classnames, evaluation.probabilities
    wrong = [
        WrongImage(
            sample.image,
            names[sample.label],
            names[label],
            probabilities[i, label].item(),
            probabilities[i, sample.label].item(),
        )
        for i, (sample, label) in enumerate(zip(samples, evaluation.predicted.tolist(), strict=True))
        if label != sample.label
    ]
    return sorted(wrong, key=lambda answer: -answer.probability)


def write_wrong_images(path: Path, wrong: Sequence[WrongImage]) -> None:
    """Write a CSV file with the columns path, class, predicted, probability and class_probability."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("path", "class", "predicted", "probability", "class_probability"))
    for answer in wrong:
        row = (f"{answer.probability:.6f}", f"{answer.truth_probability:.6f}")
        writer.writerow((answer.image.name, answer.truth, answer.predicted, *row))
    write_atomically(path, text.getvalue().encode("utf-8", "surrogateescape"))
