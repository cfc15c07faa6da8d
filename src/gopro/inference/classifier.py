"""Classify images with a trained run, over any class names."""

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

from gopro.clip.backbone import Backbone
from gopro.data.class_names import clean_names
from gopro.data.dataset import Dataset, ImageSource
from gopro.data.images.levels import Levels
from gopro.data.images.prefetch import decode_ahead
from gopro.data.images.transforms import make_pixel_view
from gopro.data.inputs import ImageLike, Images, as_images
from gopro.errors import InputError
from gopro.inference.evaluate import Evaluation, evaluate_images, logits_function
from gopro.inference.taylor_head import TaylorHead
from gopro.inference.taylor_head_file import load_or_build_head
from gopro.methods.base import Method, check_repeated
from gopro.runs.describe_run import list_classes
from gopro.runs.labelled_images import labelled_images
from gopro.runs.load_run import load_run
from gopro.runs.run import Run

Head = Literal["exact", "first-order"]

NO_IMAGES = "images: there are none; give at least one"


@dataclass(frozen=True, slots=True)
class Prediction:
    """A class name and its probability, 0 to 1."""

    name: str
    probability: float


@dataclass(frozen=True, slots=True)
class Answer:
    """The result of `Classifier.stream` for one image.

    Attributes:
        image: path of the image; `images[3]` for the fourth element of a list, if it has no path.
        predictions: most likely class first; empty if the image cannot be read.
        error: the reason why it cannot be read.
    """

    image: str
    predictions: list[Prediction]
    error: InputError | None = None


class Classifier:
    """A zero-shot or trained classifier: images in, class names out.

    Make one with `gopro.load`. Images are paths of files or folders, PIL images, numpy arrays [H, W, C], torch tensors
    [C, H, W], batches of these, or a list that mixes them; see `gopro.data.inputs.ImageLike`. A single image gives a
    single result. A list, a batch or a folder gives a list of results, even if it holds only one image; images of a
    folder are in the order of `gopro.find_images`. Images are decoded in threads and encoded in batches on the device
    of the method.

    `predict` returns names, `predict_proba` probabilities, and `classes_` names their columns, as in scikit-learn.
    Unlike there, `classes_` is not sorted: it has the order of the training or of `for_classes`.

    Attributes:
        method: the model, either the method of the run or its first-order head.
        run: the run that the method was loaded from, if any.

    Example:
        >>> classifier = gopro.load("runs/activities")
        >>> games = classifier.for_classes(["bullseye", "joystick", "a boomerang"])
        >>> games.predict("bullseye.png")
        'bullseye'
        >>> games.predict(["bullseye.png", "joystick.png"])
        ['bullseye', 'joystick']
        >>> [best, *others] = games.predict("bullseye.png", top_k=3)
        >>> print(f"{best.name}: {best.probability:.0%}")
        bullseye: 100%
    """

    def __init__(self, method: Method, run: Run | None = None):
        self.method, self.run = method.eval(), run
        self._view = make_pixel_view("eval", method.backbone.preprocess)

    def __repr__(self) -> str:
        """Return a line such as `<gopro.Classifier: gopro on photo, trained on my-images, 9 classes: ant, ...>`."""
        method = self.method
        backbone = method.backbone.name
        parts = [f"{type(method).__name__} on {backbone}, made without a run"]
        if self.run is not None:
            trained = f"trained on {self.run.data}" if self.run.method.trained_by else "without training"
            parts = [f"{self.run.config.method} on {backbone}", trained, f"run {self.run.hub or self.run.folder}"]
        if self.head != "exact":
            parts.append(f"{self.head} head")
        if method.temperature != 1:
            parts.append(f"temperature {method.temperature:.2f}")
        return f"<gopro.Classifier: {', '.join([*parts, list_classes(method.classnames, 5)])}>"

    @property
    def head(self) -> Head:
        """`exact`, or `first-order` if text features are approximated instead of encoded for each image."""
        return "first-order" if isinstance(self.method, TaylorHead) else "exact"

    @property
    def levels(self) -> Levels | None:
        """Return the levels that the run was trained with, at which images are opened too; None: the default ones."""
        return None if self.run is None else self.run.config.levels

    @property
    def classes_(self) -> np.ndarray:
        """Return the class names to choose from, an array of strings [classes]."""
        return np.array(self.method.classnames)

    def for_classes(self, names: Iterable[str], template: str | None = None) -> Classifier:
        """Return a classifier over other class names, without training.

        With a first-order head, the run's head for these names is loaded, or built if there is none; see `first_order`.

        Args:
            names: two or more, cleaned like folder names: `snowy_owl` is `snowy owl`.
            template: the hand-written prompt for these names, with {} for the name, such as "a photo of a {}, a type of
                pet."; by default the present one, at first that of the training data. Methods without a hand-written
                prompt do not read it.

        Raises:
            InputError: fewer than two names; a name that is repeated more often than among the trained classes; a name
                that the method or its text tower cannot encode; or a template without {}.

        Example:
            >>> classifier = gopro.load("runs/activities").for_classes(["chess pawn", "a boomerang"])
            >>> classifier.classes_.tolist()
            ['chess pawn', 'a boomerang']
        """
        names = clean_names(names)
        check_repeated(names, self.method.trained_names)
        if self.head == "first-order" and self.run is not None:
            return Classifier(load_or_build_head(self.run, names, template or self.method.template), self.run)
        return Classifier(self.method.for_classes(names, template), self.run)

    def first_order(self) -> Classifier:
        """Return a faster classifier over the same names that encodes no text per image.

        It uses the run's first-order head. If the run has none for these names, it is built from the run's training
        images, which takes seconds, and saved in the run's folder. `classifier.first_order().method.agreement` tells
        how closely it agrees with the exact head.

        Raises:
            InputError: the classifier does not come from a run, the training images are not available, or the run's
                folder cannot be written to.

        Example:
            >>> fast = gopro.load("runs/activities").first_order()
            >>> fast.head, fast.predict("bullseye.png")
            ('first-order', 'bullseye')
        """
        if self.head == "first-order":
            return self
        if self.run is None:
            raise InputError("a first-order head is built from the training images of a run: use gopro.load")
        return Classifier(load_or_build_head(self.run, self.method.classnames, self.method.template), self.run)

    # The type of a path does not tell a file from a folder, nor that of an array or a tensor one image from a batch.
    @overload
    def predict(self, images: Image.Image, top_k: None = None, *, batch: int = 64) -> str: ...
    @overload
    def predict(self, images: Image.Image, top_k: int, *, batch: int = 64) -> list[Prediction]: ...
    @overload
    def predict(self, images: ImageLike, top_k: None = None, *, batch: int = 64) -> str | list[str]: ...
    @overload
    def predict(
        self, images: ImageLike, top_k: int, *, batch: int = 64
    ) -> list[Prediction] | list[list[Prediction]]: ...
    @overload
    def predict(self, images: Iterable[ImageLike], top_k: None = None, *, batch: int = 64) -> list[str]: ...
    @overload
    def predict(self, images: Iterable[ImageLike], top_k: int, *, batch: int = 64) -> list[list[Prediction]]: ...
    def predict(self, images: Images, top_k: int | None = None, *, batch: int = 64) -> Any:
        """Return the most likely class names.

        Args:
            images: one image, or several: a list or another iterable, a folder, or a batch, even of one image.
            top_k: number of names per image, with their probabilities; at most the number of classes.
            batch: images to encode at once.

        Returns:
            Without `top_k`, the most likely name as a str, or a list of these for several images. With `top_k`, even
            `top_k=1`, a list of `Prediction`, most likely first, or a list of such lists for several images.

        Raises:
            InputError: a file that cannot be read; an array of an unsupported shape, dtype or range; no images; or
                `top_k` or `batch` below 1.

        Example:
            >>> classifier = gopro.load("runs/activities")
            >>> classifier.predict("bullseye.png")
            'bullseye'
            >>> [[first, second]] = classifier.predict(["bullseye.png"], top_k=2)
            >>> first.probability > second.probability
            True
        """
        sources, single = as_images(images, self.levels)
        results = []
        for answer in self._answers(sources, 1 if top_k is None else _at_least_1("top_k", top_k), batch):
            if answer.error is not None:
                raise answer.error
            results.append(answer.predictions[0].name if top_k is None else answer.predictions)
        if not results:
            raise InputError(NO_IMAGES)
        return results[0] if single else results

    def predict_proba(self, images: Images, *, batch: int = 64) -> Float[np.ndarray, "*images classes"]:
        """Return the probability of each class of `classes_` for each image.

        Returns:
            float32 [classes] for one image, [images, classes] for several.

        Raises:
            InputError: as `predict`.

        Example:
            >>> classifier = gopro.load("runs/activities")
            >>> probabilities = classifier.predict_proba(["bullseye.png", "joystick.png"])
            >>> classifier.classes_[probabilities.argmax(axis=1)].tolist()
            ['bullseye', 'joystick']
        """
        return self._rows(images, lambda encoded: self.method.probabilities(self._logits(encoded)), batch)

    def features(self, images: Images, *, batch: int = 64) -> Float[np.ndarray, "*images embed"]:
        """Return the unit image features that the logits compare with text features.

        Returns:
            float32 [D] for one image, [images, D] for several. Dot products are cosine similarities of images.

        Raises:
            InputError: as `predict`.

        Example:
            >>> a, b = gopro.load("runs/activities").features(["bullseye.png", "joystick.png"])
            >>> bool(a @ b < a @ a)
            True
        """
        return self._rows(images, self.method.image_features, batch)

    def text_features(self, images: Images, *, batch: int = 64) -> Float[np.ndarray, "*images classes embed"]:
        """Return the unit text features of each class of `classes_` that the logits compare image features with.

        Methods that generate prompts from the image (GOPro, CoCoOp, StyLIP) have different text features for each
        image. For all other methods any one image will do.

        Returns:
            float32 [classes, D] for one image, [images, classes, D] for several.

        Raises:
            InputError: as `predict`, or the method does not use text (linear probe).

        Example:
            >>> gopro.load("runs/activities").for_classes(["fan", "kite"]).text_features("bullseye.png").shape
            (2, 128)
        """

        def text_features(encoded: Any) -> Tensor:
            text = self.method.text_features(self.method.image_contexts(encoded))
            return text.expand(len(self.method.image_features(encoded)), -1, -1)

        return self._rows(images, text_features, batch)

    def stream(
        self, images: Images, top_k: int = 5, *, batch: int = 64, workers: int | None = None
    ) -> Generator[Answer, None, None]:
        """Yield an answer for each image, in order, for more images than fit in memory.

        A file that cannot be read yields an answer with an error, and the stream goes on. `images` may be a generator:
        it is read in another thread, no further ahead than two batches.

        Args:
            top_k: number of names per image; at most the number of classes.
            batch: images to encode at once.
            workers: threads that decode images; by default one per core, at most 16.

        Raises:
            InputError: `top_k`, `batch` or `workers` below 1. While iterating: an array of an unsupported shape, dtype
                or range, or a folder without images.

        Example:
            >>> classifier = gopro.load("runs/activities")
            >>> for answer in classifier.stream(["bullseye.png", "missing.png"], top_k=1):
            ...     print(answer.image, "cannot be read" if answer.error else answer.predictions[0].name)
            bullseye.png bullseye
            missing.png cannot be read
        """
        if workers is not None:
            _at_least_1("workers", workers)
        return self._answers(
            as_images(images, self.levels)[0], _at_least_1("top_k", top_k), _at_least_1("batch", batch), workers
        )

    def evaluate(
        self,
        data: str | Path | Dataset | None = None,
        *,
        root: Path | None = None,
        batch: int = 64,
        workers: int = 0,
    ) -> Evaluation:
        """Measure the accuracy over `classes_` on labelled images, with the confusion matrix and the calibration.

        Test images that the run was trained on are left out.

        Args:
            data: a data set by name, a folder of class folders, of which all images or those in its folder `test` are
                tested and into which nothing is written, or a loaded data set. By default, or for the folder that the
                run was trained on, the test images of the run's data set.
            root: folder that contains the benchmark data sets; by default the run's.
            workers: processes that read images; with 0 this process does.

        Raises:
            InputError: there are no such data, none of their classes is in `classes_`, or an image cannot be read.

        Example:
            >>> evaluation = gopro.load("runs/activities").evaluate()
            >>> evaluation.n, evaluation.accuracy > 30
            (850, True)
            >>> evaluation.confusion.classes()[0].name, evaluation.calibration.ece < evaluation.uncalibrated.ece
            ('1st place medal', True)
        """
        samples = labelled_images(self.method.classnames, self.run, data, root)
        return evaluate_images(self.method, samples, batch=_at_least_1("batch", batch), workers=workers)

    def _answers(
        self, sources: Iterator[ImageSource], top_k: int, batch: int, workers: int | None = None
    ) -> Generator[Answer, None, None]:
        names = self.method.classnames
        # A generator closed in Python 3.12.3 keeps what it iterates over, and so its decoding threads: close it here.
        with closing(self.encode_batches(sources, batch, workers)) as batches:
            for images, errors, encoded in batches:
                predictions: Iterator[list[Prediction]] = iter(())
                if encoded is not None:
                    logits = self._logits(encoded)
                    top = logits.topk(min(top_k, len(names))).indices
                    probabilities = self.method.probabilities(logits).gather(-1, top)
                    predictions = (
                        [Prediction(names[i], p) for p, i in zip(values, indices, strict=True)]
                        for values, indices in zip(probabilities.tolist(), top.tolist(), strict=True)
                    )
                for image, error in zip(images, errors, strict=True):
                    yield Answer(image.name, next(predictions) if error is None else [], error)

    def _rows(self, images: Images, compute: Callable[[Any], Tensor], batch: int) -> np.ndarray:
        """Compute a row for each image from its encoding; return the row itself for a single image."""
        sources, single = as_images(images, self.levels)
        parts = []
        for _, errors, encoded in self.encode_batches(sources, batch):
            for error in errors:
                if error is not None:
                    raise error
            with torch.no_grad():
                parts.append(compute(encoded).float().cpu())
        if not parts:
            raise InputError(NO_IMAGES)
        rows = torch.cat(parts).numpy()
        return rows[0] if single else rows

    def encode_batches(
        self, sources: Iterator[ImageSource], batch: int, workers: int | None = None
    ) -> Generator[tuple[list[ImageSource], list[InputError | None], Any], None, None]:
        """Yield batches: the images, for each of them the error if it cannot be read, and the encoding of the others,
        None if there are no others."""
        device = self.method.backbone.device
        with closing(decode_ahead(sources, self._view, batch=_at_least_1("batch", batch), workers=workers)) as parts:
            for part in parts:
                views = [view for _, view in part if isinstance(view, Tensor)]
                errors = [view if isinstance(view, InputError) else None for _, view in part]
                with torch.no_grad():
                    encoded = self.method.encode(torch.stack(views).to(device)) if views else None
                yield [source for source, _ in part], errors, encoded

    @torch.no_grad()
    def _logits(self, encoded: Any) -> Float[Tensor, "batch classes"]:
        return self._compute_logits(encoded).float().cpu()

    @cached_property
    def _compute_logits(self) -> Callable[[Any], Tensor]:
        return logits_function(self.method)


def _at_least_1(setting: str, value: Any) -> int:
    try:
        value = operator.index(value)
    except TypeError as error:
        raise InputError(f"{setting} is {value!r}: give a whole number") from error
    if value < 1:
        raise InputError(f"{setting} is {value}: give at least 1")
    return value


def load(
    run: str | Path, device: str = "auto", head: Head = "exact", *, backbone: Backbone | str | None = None
) -> Classifier:
    """Load the classifier of a trained run.

    Args:
        run: folder of a run, or `ORG/NAME` or `ORG/NAME@REVISION` of one on the Hugging Face Hub.
        device: `cpu`, `cuda`, or `auto` for a GPU if there is one.
        head: `exact`, or `first-order` for the faster head; see `Classifier.first_order`.
        backbone: the file of the backbone's weights, if they do not lie where the run says, as on another machine than
            the one that it was trained on; their fingerprint must be the one that the run records. Or a loaded
            backbone, which several runs can share.

    Raises:
        InputError: not a finished run; a device that is not there; an unknown head, or one that cannot be built; other
            weights than the run was trained on.

    Example:
        >>> gopro.load("runs/activities", device="cpu").predict("bullseye.png")
        'bullseye'
    """
    if head not in get_args(Head):
        raise InputError(f"head {head!r}: give exact or first-order")
    trained = load_run(run, device, backbone)
    classifier = Classifier(trained.method, trained)
    return classifier if head == "exact" else classifier.first_order()
