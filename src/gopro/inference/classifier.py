"""A trained method in use: any class names, any images."""

from __future__ import annotations

import operator
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args, overload

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from gopro.data.dataset import ImageSource
from gopro.data.inputs import ImageLike, Images, as_images
from gopro.data.prefetch import decode_ahead
from gopro.data.transforms import make_view
from gopro.errors import InputError
from gopro.inference.evaluate import logits_function
from gopro.inference.taylor_head import TaylorHead
from gopro.inference.taylor_head_file import load_or_build_head
from gopro.methods.base import Method
from gopro.runs.run import Run, load_run

Head = Literal["exact", "first-order"]

NONE = "images: there are none; give at least one"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class name and its probability, 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What `Classifier.stream` says of an image.

    Attributes:
        image: its path; `images[3]` for the fourth of a list, if it has none.
        predictions: likeliest first; none where the image could not be read.
        error: why it could not.
    """

    image: str
    predictions: list[Prediction]
    error: InputError | None = None


class Classifier:
    """A method with images in and names out.

    Images are whatever `gopro.data.inputs.ImageLike` says: paths of files and folders, PIL images, numpy arrays
    [H, W, C] and torch tensors [C, H, W], alone, in batches or in lists of these mixed. One image gives one answer, a
    list, a batch or a folder a list of answers, also where it holds one image. A folder's images come in the order
    of `gopro.find_images`. They are decoded in threads and go through the image tower in batches, on the device that
    the method is on.

    As in scikit-learn, `predict` gives names, `predict_proba` probabilities, and `classes_` says what its columns are.
    Where scikit-learn sorts `classes_`, here the order is that of training or of `for_classes`.

    Attributes:
        method: what makes the logits: the run's method, or its first-order head.
        run: the run it comes from, if it does; a first-order head needs one.
    """

    def __init__(self, method: Method, run: Run | None = None):
        self.method, self.run = method.eval(), run
        self._view = make_view("eval", method.backbone.preprocess)

    @property
    def head(self) -> Head:
        """How text features are had: encoded for each image, or by the first-order head."""
        return "first-order" if isinstance(self.method, TaylorHead) else "exact"

    @property
    def classes_(self) -> np.ndarray:
        """The class names that it chooses from, [classes], text."""
        return np.array(self.method.classnames)

    def for_classes(self, names: Iterable[str]) -> Classifier:
        """The same classifier over other names, at once and without training. With the first-order head, one for these
        names is built, if the run has none, as `first_order` says.

        Raises:
            InputError: no names, one that is given twice, or one that the method or its text tower cannot take.
        """
        if isinstance(names, str):
            raise InputError(f"class names {names!r}: give a list of names, such as [{names!r}]")
        names = list(names)
        seen = set()
        for name in names:
            if not isinstance(name, str) or not name.strip():
                raise InputError(f"class name {name!r}: give a name in words")
            if name in seen:
                raise InputError(f"class name {name!r} is given twice")
            seen.add(name)
        names = [str(name) for name in names]
        if self.head == "first-order" and self.run is not None:
            return Classifier(load_or_build_head(self.run, names), self.run)
        return Classifier(self.method.for_classes(names), self.run)

    def first_order(self) -> Classifier:
        """The same over the same names with the run's first-order head, which encodes no text for an image.

        If the run has none for these names, it is built of the run's training images, which takes some seconds, and
        kept in the run's folder. `classifier.first_order().method.agreement` says how near it comes to the exact head.

        Raises:
            InputError: there is no run that the method comes from; the training images cannot be had, or the run's
                folder not be written to.
        """
        if self.head == "first-order":
            return self
        if self.run is None:
            raise InputError(
                "a first-order head is built of a run's training images: make the classifier by gopro.load"
            )
        return Classifier(load_or_build_head(self.run, self.method.classnames), self.run)

    # A path, an array and a tensor may be one image or several, which no type tells: Any.
    @overload
    def predict(self, images: Image.Image, top_k: None = None, *, batch: int = 64) -> str: ...
    @overload
    def predict(self, images: Image.Image, top_k: int, *, batch: int = 64) -> list[Prediction]: ...
    @overload
    def predict(self, images: ImageLike, top_k: int | None = None, *, batch: int = 64) -> Any: ...
    @overload
    def predict(self, images: Iterable[ImageLike], top_k: None = None, *, batch: int = 64) -> list[str]: ...
    @overload
    def predict(self, images: Iterable[ImageLike], top_k: int, *, batch: int = 64) -> list[list[Prediction]]: ...
    def predict(self, images: Images, top_k: int | None = None, *, batch: int = 64) -> Any:
        """The likeliest class names.

        Args:
            images: see the class.
            top_k: how many names an image, with their probabilities; where there are fewer classes, all of them.
            batch: images that go through the tower at once.

        Returns:
            Without `top_k` the likeliest name, as in scikit-learn: a str for one image, a list of them for several.
            With it, also with 1, a list of `Prediction` (`.name`, `.probability`), likeliest first, for one image, a
            list of such lists for several.

        Raises:
            InputError: a file that cannot be read, an array of another shape, dtype or range, no images; or a
                `top_k` or `batch` below 1.
        """
        given, one = as_images(images)
        answers = []
        for answer in self._answers(given, 1 if top_k is None else _above_0("top_k", top_k), batch):
            if answer.error is not None:
                raise answer.error
            answers.append(answer.predictions[0].name if top_k is None else answer.predictions)
        if not answers:
            raise InputError(NONE)
        return answers[0] if one else answers

    def predict_proba(self, images: Images, *, batch: int = 64) -> Float[np.ndarray, "*images classes"]:
        """Probability of each class of `classes_` for each image: float32 [classes] for one, [images, classes] for
        several.

        Raises:
            InputError: as `predict`.
        """
        return self._rows(images, lambda encoded: self._logits(encoded).softmax(dim=-1), batch)

    def features(self, images: Images, *, batch: int = 64) -> Float[np.ndarray, "*images embed"]:
        """Unit image features, those that the logits compare with text: float32 [D] for one image, [images, D] for
        several. A dot product of two is their images' cosine similarity.

        Raises:
            InputError: as `predict`.
        """
        return self._rows(images, self.method.image_features, batch)

    def text_features(self, images: Images, *, batch: int = 64) -> Float[np.ndarray, "*images classes embed"]:
        """Unit text features of each class of `classes_`, those that the logits compare the images' features with:
        float32 [classes, D] for one image, [images, classes, D] for several.

        Where a method makes its prompts out of the image (GOPro, CoCoOp), they differ from image to image; with
        the others any one image will do.

        Raises:
            InputError: as `predict`; the method compares images with no text (a linear probe).
        """

        def of(encoded: Any) -> Tensor:
            text = self.method.class_features(encoded)
            return text.expand(len(self.method.image_features(encoded)), -1, -1)

        return self._rows(images, of, batch)

    def stream(
        self, images: Images, top_k: int = 5, *, batch: int = 64, workers: int | None = None
    ) -> Generator[Answer, None, None]:
        """Answers one by one, in the order of the images, for more images than one wants to hold in memory.

        A file that cannot be read gets an answer with the reason, and the others go on. Images are asked for no
        further ahead than two batches, so `images` may be a generator; it is iterated in another thread.

        Args:
            workers: threads that decode; one for each core, 16 at most, if not given.

        Raises:
            InputError: `top_k`, `batch` or `workers` below 1. While iterating: an array of another shape, dtype or
                range, a folder without images.
        """
        if workers is not None:
            _above_0("workers", workers)
        return self._answers(as_images(images)[0], _above_0("top_k", top_k), _above_0("batch", batch), workers)

    def _answers(
        self, given: Iterator[ImageSource], top_k: int, batch: int, workers: int | None = None
    ) -> Generator[Answer, None, None]:
        names = self.method.classnames
        # By hand: in Python 3.12.3 a generator that is closed keeps what it iterates, and so the threads that decode.
        with closing(self._encoded(given, batch, workers)) as batches:
            for images, errors, encoded in batches:
                likeliest: Iterator[list[Prediction]] = iter(())
                if encoded is not None:
                    top = self._logits(encoded).softmax(dim=-1).topk(min(top_k, len(names)))
                    likeliest = (
                        [Prediction(names[i], p) for p, i in zip(values, indices, strict=True)]
                        for values, indices in zip(top.values.tolist(), top.indices.tolist(), strict=True)
                    )
                for image, error in zip(images, errors, strict=True):
                    yield Answer(image.name, next(likeliest) if error is None else [], error)

    def _rows(self, images: Images, of: Callable[[Any], Tensor], batch: int) -> np.ndarray:
        """A row for each image, made of what the tower says; the row itself for one image."""
        given, one = as_images(images)
        rows = []
        for _, errors, encoded in self._encoded(given, batch):
            for error in errors:
                if error is not None:
                    raise error
            with torch.no_grad():
                rows.append(of(encoded).float().cpu())
        if not rows:
            raise InputError(NONE)
        found = torch.cat(rows).numpy()
        return found[0] if one else found

    def _encoded(
        self, given: Iterator[ImageSource], batch: int, workers: int | None = None
    ) -> Generator[tuple[list[ImageSource], list[InputError | None], Any], None, None]:
        """Batches of images; for each why it could not be read; what the tower says of those that could, None if
        there are none."""
        device = self.method.backbone.device
        with closing(decode_ahead(given, self._view, batch=_above_0("batch", batch), workers=workers)) as parts:
            for part in parts:
                images = [image for _, image in part if isinstance(image, Tensor)]
                with torch.no_grad():
                    encoded = self.method.encode(torch.stack(images).to(device)) if images else None
                yield [p for p, _ in part], [e if isinstance(e, InputError) else None for _, e in part], encoded

    @torch.no_grad()
    def _logits(self, encoded: Any) -> Float[Tensor, "batch classes"]:
        """The one place where logits are made."""
        return self._logits_function(encoded).float().cpu()

    @cached_property
    def _logits_function(self) -> Callable[[Any], Tensor]:
        return logits_function(self.method)


def _above_0(what: str, value: Any) -> int:
    try:
        value = operator.index(value)
    except TypeError as error:
        raise InputError(f"{what} is {value!r}: give a whole number") from error
    if value < 1:
        raise InputError(f"{what} is {value}: give at least 1")
    return value


def load(run: str | Path, device: str = "auto", head: Head = "exact") -> Classifier:
    """The classifier of a trained run.

    Args:
        run: the folder of a run, or `ORG/NAME` or `ORG/NAME@REVISION` for one on the Hugging Face Hub.
        device: where to compute: `cpu`, `cuda`, or `auto`, which is a GPU if there is one.
        head: `first-order` for the head that encodes no text, see `Classifier.first_order`.

    Raises:
        InputError: no finished run; cuda where there is none; a head of another name, or one that cannot be had.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device {device}: torch finds none here; use cpu")
    if head not in get_args(Head):
        raise InputError(f"head {head!r}: give exact or first-order")
    trained = load_run(run, device)
    classifier = Classifier(trained.method, trained)
    return classifier if head == "exact" else classifier.first_order()
