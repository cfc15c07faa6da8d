"""A run's predictions for each test image, stored beside the run: labels, likeliest classes, their probabilities."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gopro.errors import InputError
from gopro.files import save_tensors
from gopro.inference.evaluate import Evaluation

TOP_CLASSES = 5
"""Likeliest classes stored per image, or all if there are fewer."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of one evaluation, in the order of the data set's test images.

    Attributes:
        data: name or path that loads the data set.
        classes: half of its classes: all, base or new.
        classnames: the names that `labels` and `top` index.
        labels: [n] true classes.
        top: [n, k] the likeliest classes, in descending order.
        probability: [n, k] their probabilities, 0 to 1.
    """

    data: str
    classes: str
    classnames: tuple[str, ...]
    labels: Int[Tensor, " n"]
    top: Int[Tensor, "n k"]
    probability: Float[Tensor, "n k"]

    @staticmethod
    def of(
        evaluation: Evaluation, labels: Int[Tensor, " n"], data: str, classes: str, names: tuple[str, ...]
    ) -> Predictions:
        """Keep the likeliest classes of an evaluation."""
        probability, top = evaluation.probabilities.topk(min(TOP_CLASSES, len(names)), dim=-1)
        return Predictions(data, classes, names, labels.int(), top.int(), probability.half())

    def save(self, path: Path) -> None:
        """Write the file atomically."""
        metadata = {
            "data": self.data,
            "classes": self.classes,
            "classnames": json.dumps(self.classnames, ensure_ascii=False),
        }
        save_tensors(path, {"labels": self.labels, "top": self.top, "probability": self.probability}, metadata)

    @staticmethod
    def load(path: Path) -> Predictions:
        """Read a file that `save` wrote.

        Raises:
            InputError: the file does not exist or does not hold predictions.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                labels, top, probability = (file.get_tensor(key) for key in ("labels", "top", "probability"))
            names = tuple(json.loads(metadata["classnames"]))
            if top.shape != probability.shape or len(top) != len(labels):
                raise ValueError(f"shapes {tuple(labels.shape)}, {tuple(top.shape)}, {tuple(probability.shape)}")
            if len(labels) and not 0 <= min(labels.min(), top.min()) <= max(labels.max(), top.max()) < len(names):
                raise ValueError(f"a class index outside the {len(names)} names")
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            first_line = str(error).strip().splitlines()[0]
            raise InputError(
                f"{path} does not hold predictions ({first_line}): remove it and its line in results.jsonl"
            ) from error
        return Predictions(metadata["data"], metadata["classes"], names, labels.long(), top.long(), probability.float())

    def accuracy_per_class(self) -> list[float | None]:
        """Return the accuracy of each class in percent, None for a class without images."""
        classes = len(self.classnames)
        counts = torch.bincount(self.labels, minlength=classes)
        correct = torch.bincount(self.labels[self.top[:, 0] == self.labels], minlength=classes)
        return [100 * c / n if n else None for c, n in zip(correct.tolist(), counts.tolist(), strict=True)]
