"""What a run says of each test image, kept beside the run: labels, likeliest classes, their probabilities."""

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

LIKELIEST = 5
"""Classes kept an image, fewer where there are fewer."""


@dataclass(frozen=True)
class Predictions:
    """The predictions of one evaluation, images in the order of the data set's test split.

    Attributes:
        data: what the data set was asked for as, to load it again.
        classes: which half of its classes: all, base or new.
        classnames: the names that `labels` and `top` index.
        labels: [n].
        top: [n, k] the likeliest classes, likeliest first.
        probability: [n, k] theirs, 0 to 1.
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
        """The likeliest classes of an evaluation."""
        probability, top = evaluation.probabilities.topk(min(LIKELIEST, len(names)), dim=-1)
        return Predictions(data, classes, names, labels.int(), top.int(), probability.half())

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all."""
        metadata = {
            "data": self.data,
            "classes": self.classes,
            "classnames": json.dumps(self.classnames, ensure_ascii=False),
        }
        save_tensors(path, {"labels": self.labels, "top": self.top, "probability": self.probability}, metadata)

    @staticmethod
    def load(path: Path) -> Predictions:
        """From what `save` wrote.

        Raises:
            InputError: there is no such file, or it holds something else.
        """
        try:
            with safe_open(path, framework="pt") as file:
                said = file.metadata()
                labels, top, probability = (file.get_tensor(key) for key in ("labels", "top", "probability"))
            names = tuple(json.loads(said["classnames"]))
            if top.shape != probability.shape or len(top) != len(labels):
                raise ValueError(f"shapes {tuple(labels.shape)}, {tuple(top.shape)}, {tuple(probability.shape)}")
            if len(labels) and not 0 <= min(labels.min(), top.min()) <= max(labels.max(), top.max()) < len(names):
                raise ValueError(f"a class beyond the {len(names)} names")
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise InputError(
                f"{path} does not hold predictions ({first}): remove it and its line of results"
            ) from error
        return Predictions(said["data"], said["classes"], names, labels.long(), top.long(), probability.float())

    def accuracy_by_class(self) -> list[float | None]:
        """Percent right of each class, None for a class without an image."""
        classes = len(self.classnames)
        counts = torch.bincount(self.labels, minlength=classes)
        right = torch.bincount(self.labels[self.top[:, 0] == self.labels], minlength=classes)
        return [100 * r / n if n else None for r, n in zip(right.tolist(), counts.tolist(), strict=True)]
