"""A trained method in use: any class names, any pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gopro.data import PictureFile
from gopro.methods import Method
from gopro.run import load_run
from gopro.views import make_view


@dataclass(frozen=True)
class Prediction:
    """A class name and its probability, 0 to 1."""

    name: str
    probability: float


class Classifier:
    """A method with pictures in and names out.

    Attributes:
        classes: the class names it chooses from.
    """

    def __init__(self, method: Method):
        self.method = method.eval()
        self._view = make_view("eval", method.backbone.preprocess)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.method.classnames

    def for_classes(self, names: Sequence[str]) -> Classifier:
        """The same classifier over other names, at once and without training.

        Raises:
            InputError: no names, or one that the text tower cannot take.
        """
        return Classifier(self.method.for_classes(names))

    @torch.no_grad()
    def probabilities(
        self, pictures: Sequence[str | Path | Image.Image], *, batch: int = 64
    ) -> Float[Tensor, "pictures classes"]:
        """Probability of each class for each picture, files or PIL images.

        Raises:
            InputError: a file that cannot be read as a picture.
        """
        parts = []
        for i in range(0, len(pictures), batch):
            images = torch.stack([self._view(_opened(picture)) for picture in pictures[i : i + batch]])
            encoded = self.method.encode(images.to(self.method.backbone.device))
            parts.append(self.method.logits(encoded).float().softmax(dim=-1).cpu())
        return torch.cat(parts) if parts else torch.empty(0, len(self.classes))

    def predict(self, picture: str | Path | Image.Image, top_k: int = 5) -> list[Prediction]:
        """The likeliest classes of one picture, likeliest first.

        Raises:
            InputError: a file that cannot be read as a picture.
        """
        values, indices = self.probabilities([picture])[0].topk(min(top_k, len(self.classes)))
        return [Prediction(self.classes[i], p) for p, i in zip(values.tolist(), indices.tolist(), strict=True)]


def _opened(picture: str | Path | Image.Image) -> Image.Image:
    return picture.convert("RGB") if isinstance(picture, Image.Image) else PictureFile(Path(picture)).open()


def load(run: str | Path, device: str = "cpu") -> Classifier:
    """The classifier of a trained run.

    Raises:
        InputError: not the folder of a finished run.
    """
    return Classifier(load_run(Path(run), device).method)
