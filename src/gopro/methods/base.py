"""The interface of all methods: training, evaluation, serving, export and the report use nothing else of them."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Self

import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from gopro.clip.backbone import Backbone
from gopro.clip.similarity import similarity
from gopro.data.images.transforms import ViewName
from gopro.errors import InputError
from gopro.methods.recipe import Grid, Recipe, Repository, Training, Variant
from gopro.methods.template import DEFAULT_TEMPLATE


def check_repeated(classnames: Sequence[str], trained: Sequence[str]) -> None:
    """Refuse a class name that is given more often than there are trained classes of that name, and more than once.

    A name given twice is mostly a typing mistake, but some data sets have two classes of one name. Upper and lower case
    make no other name, as CLIP's tokenizer writes all in lower case.

    Raises:
        InputError: there is such a name.

    Example:
        >>> check_repeated(["missile", "missile", "owl"], trained=["owl", "missile", "missile"])
    """
    allowed = Counter(map(str.casefold, trained))
    spellings: dict[str, list[str]] = {}
    for name in classnames:
        spellings.setdefault(name.casefold(), []).append(name)
    for key, names in spellings.items():
        if (count := len(names)) > max(1, allowed[key]):
            times = "twice" if count == 2 else f"{count} times"
            most = f"at most {allowed[key]} times, as it was trained on" if allowed[key] > 1 else "once"
            also = "".join(f", also as {name!r}" for name in dict.fromkeys(names) if name != names[0])
            raise InputError(f"class name {names[0]!r} is given {times}{also}: give it {most}")


class Method(nn.Module):
    """A classifier over class names on a frozen CLIP.

    Its parameters and buffers are what it has learned, and nothing else: backbone and class names stay out of them, so
    that a state dict is small and fits any class names. Most methods define `set_classes` and `text_features`; some
    also `image_features` and `losses`.

    Example:
        >>> import gopro, torch
        >>> from gopro.methods import build_method
        >>> backbone = gopro.load_backbone("emoji")
        >>> method = build_method("coop", backbone, ["owl", "fox"], "a photo of a {}.")
        >>> size = backbone.preprocess.size
        >>> method.logits(method.encode(torch.zeros(4, 3, size, size))).shape
        torch.Size([4, 2])

    Attributes:
        config: the settings, a dataclass made by `gopro.settings.settings`; on the class, the defaults.
        trained_by: gradient steps on `losses`, one call of `solve`, both, or nothing.
        recipe: optimiser, schedule and batches of the steps, where a run's settings do not say otherwise: the authors'
            for base-to-new.
        variants: what the authors change for other tasks, data sets or shots.
        repository: the authors' repository, where the recipes come from; None if there are no steps or the recipe is
            ours.
        grid: values of up to three of its settings or its recipe's, such as the learning rate and its main weight;
            `gopro tune` tries combinations of them.
        views: the views of an image that a training step needs, the plain one first.
        frozen_images: whether the image tower is the frozen CLIP's, so that its output can be cached. A method that
            learns inside the tower sets it to False; its `encode` then returns the images themselves.
        uses_unlabeled: whether it learns from images without labels too, by `solve_unlabeled` or `unlabeled_losses`.
        unlabeled_names: the class names that such images may show, if they are others than the trained ones.
        needs_vit: whether it puts learned tokens into the image tower, which only open_clip's own ViT takes.
        text_depends_on_image: whether each image has text features of its own, from `image_contexts`. If not, they
            are computed once for all images.
        trained_names, trained_template: the class names that it was created with, and the prompt of their data set.
        classnames, template: those that it classifies now, and the prompt of the data set that they come from.
        other_data: whether the images that it classifies now come from another data set than the training images.
        temperature: number above 0 that `probabilities` divides the logits by; 1 unless the run was calibrated, see
            `gopro.inference.calibration`. It is a property of the trained method, which `for_classes` passes on.
    """

    config: Any
    trained_by: ClassVar[Training] = Training.STEPS
    recipe: ClassVar[Recipe] = Recipe()
    variants: ClassVar[tuple[Variant, ...]] = ()
    repository: ClassVar[Repository | None] = None
    grid: ClassVar[Mapping[str, Sequence[Any]]] = Grid({})
    views: tuple[ViewName, ...] = ("base",)
    frozen_images: bool = True
    uses_unlabeled: ClassVar[bool] = False
    unlabeled_names: tuple[str, ...] = ()
    needs_vit: ClassVar[bool] = False
    text_depends_on_image: bool = False
    temperature: float = 1.0

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: Any, template: str = DEFAULT_TEMPLATE):
        """
        Args:
            template: the data set's own prompt, with {} for the class name.
        """
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.trained_names = tuple(classnames)
        self.template = self.trained_template = template
        self.other_data = False
        self.set_classes(classnames)

    def for_classes(
        self, classnames: Sequence[str], template: str | None = None, *, other_data: bool | None = None
    ) -> Self:
        """Return a classifier over other class names that shares what was learned.

        It is a shallow copy: its parameters, buffers and submodules are the very same objects, so further training of
        either one shows in both.

        Args:
            template: the prompt of the data set that the names come from, with {} for the name; the present one if
                None. Methods compare with it where their settings have no template.
            other_data: whether the images to classify come from another data set than the training images, which
                some methods treat differently; as at present if None, and False for a new method.

        Raises:
            InputError: there are no names, the text tower cannot encode one, the method cannot classify it, or the
                template does not hold exactly one {}.
        """
        other = copy.copy(self)
        if template is not None:
            other.template = template
        if other_data is not None:
            other.other_data = other_data
        other.set_classes(classnames)
        return other

    @property
    def zero_shot_template(self) -> str:
        """The hand-written prompt of the classes: the one in the method's settings, else their data set's own."""
        return self.config.template or self.template

    def set_classes(self, classnames: Sequence[str]) -> None:
        """Prepare what depends on the class names, mostly their prompts; called by `__init__` and `for_classes`.

        Store it in plain attributes. Parameters, buffers and submodules are off limits: the copies that `for_classes`
        makes share them, and at the first call there are none.
        """
        self.classnames = tuple(classnames)

    def trained_rows(self, classnames: Sequence[str]) -> list[int | None]:
        """Return the position of each class among the trained ones, None for a class that was not trained on.

        Names may repeat, as ImageNet's `missile` does: the n-th class of a name is the n-th trained class of that name.
        If one of two is left out, the other is therefore taken for the first.

        Example:
            >>> method = Method(gopro.load_backbone("emoji"), ["missile", "owl", "missile"], None)
            >>> method.trained_rows(["fox", "missile", "missile", "missile", "owl"])
            [None, 0, 2, None, 1]
        """
        positions: dict[str, list[int]] = {}
        for i, name in enumerate(self.trained_names):
            positions.setdefault(name, []).append(i)
        unused = {name: iter(rows) for name, rows in positions.items()}
        return [next(unused.get(name, iter(())), None) for name in classnames]

    def require_trained_rows(self, classnames: Sequence[str], reason: str) -> list[int]:
        """Return the `trained_rows` of classes that were all trained on.

        Args:
            reason: why no other class will do, and what to use instead.

        Raises:
            InputError: a class that was not trained on.
        """
        rows: list[int] = []
        for name, row in zip(classnames, self.trained_rows(classnames), strict=True):
            if row is None:
                also = f" {list(classnames).count(name)} times" if name in self.trained_names else ""
                raise InputError(f"class {name!r} was not trained on{also}: {reason}")
            rows.append(row)
        return rows

    def encode(self, images: Shaped[Tensor, "*batch 3 size size"]) -> Any:
        """Compute what no learned parameter touches: `Encoded` [*batch], or the images if the tower is not frozen.

        Args:
            images: preprocessed, or 8-bit views, which are normalised here.
        """
        return self.backbone.encode(images) if self.frozen_images else self.backbone.normalized(images)

    def image_features(self, encoded: Any) -> Float[Tensor, "*batch embed"]:
        """Return the unit image features; the embeddings, unless the method changes them.

        Args:
            encoded: the output of `encode` for images [*batch].
        """
        return encoded.embedding

    def image_contexts(self, encoded: Any) -> Float[Tensor, "batch tokens width"] | None:
        """Return the context that each image generates for its text features; None without `text_depends_on_image`."""
        return None

    def text_features(self, contexts: Tensor | None = None) -> Float[Tensor, "#batch classes embed"]:
        """Return the unit text features of the classes: [1, classes, D], or [batch, classes, D] under contexts.

        Args:
            contexts: the output of `image_contexts`.

        Raises:
            InputError: the method has no text.
        """
        raise InputError(f"{type(self).__name__} compares images with no text: there are no text features")

    def image_vectors(self, encoded: Any) -> Float[Tensor, "batch dim"]:
        """Return the images' side of the logits; the image features, unless the method compares more than these."""
        return self.image_features(encoded)

    def class_vectors(self, contexts: Tensor | None = None) -> Float[Tensor, "#batch classes dim"]:
        """Return the classes' side of the logits: the text features, then any columns that do not depend on the image.

        `TaylorHead` relies on this order.
        """
        return self.text_features(contexts)

    def logits(self, encoded: Any) -> Float[Tensor, "batch classes"]:
        """Return the scaled products of `image_vectors` and `class_vectors`.

        Args:
            encoded: the output of `encode` for images [batch].
        """
        classes = self.class_vectors(self.image_contexts(encoded))
        return self.backbone.logit_scale * similarity(self.image_vectors(encoded), classes)

    def probabilities(self, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, "batch classes"]:
        """Return the softmax of the logits divided by the temperature, in fp32."""
        return (logits.float() / self.temperature).softmax(dim=-1)

    def losses(self, encoded: Any, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        """Return the loss terms by name, already weighted; a training step minimises their sum.

        By default it is the cross-entropy of the plain view.

        On several devices the batch is one device's share. A mean over images is right as it is; a term that compares
        images with one another joins the shares by `gopro.distributed.gather`.

        Args:
            encoded: the output of `encode` for the views of a batch, [views, batch], in the order of `views`.
            labels: [batch].
        """
        return {"ce": F.cross_entropy(self.logits(encoded[0]), labels)}

    @property
    def unlabeled_in_steps(self) -> bool:
        """Whether training steps take images without labels, for `unlabeled_losses`; by default that of
        `uses_unlabeled`."""
        return self.uses_unlabeled

    def unlabeled_losses(self, encoded: Any) -> dict[str, Tensor]:
        """Return the loss terms of images without labels, as `losses` does; they are added to those of the labelled.

        Args:
            encoded: the output of `encode` for the views of as many images as there are labelled ones in the step,
                [views, batch], in the order of `views`.
        """
        raise NotImplementedError(f"{type(self).__name__} learns nothing from images without labels")

    def solve_unlabeled(self, encoded: Any) -> None:
        """Learn from all images without labels at once; called after `solve`, if that is called.

        Args:
            encoded: the encoded images in their evaluation view, [m].
        """

    def solve(
        self,
        draws: Callable[[int], Iterable[Any]],
        labels: Int[Tensor, " n"],
        val: tuple[Any, Int[Tensor, " val"]] | None = None,
    ) -> None:
        """Learn from all training images at once. The same images give the same bits.

        Args:
            draws: yields the encoded training images [n]: for a count of 0 once, in their evaluation view; otherwise
                that often, in random draws of the first of `views`.
            labels: [n].
            val: the encoded validation images [val] and their labels, if there are any.
        """
        raise NotImplementedError(f"{type(self).__name__} has no closed form")

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Do what follows each of `epochs` epochs, counted from 0, before the state is saved or validated."""

    def forward(self, encoded: Any, labels: Int[Tensor, " batch"], unlabeled: Any = None) -> dict[str, Tensor]:
        """Return `losses` and, of images without labels, `unlabeled_losses`, whose names get `unlabeled_` in front.

        Modules wrapped for several devices synchronise gradients only when called.
        """
        terms = self.losses(encoded, labels)
        if unlabeled is not None:
            terms |= {f"unlabeled_{name}": term for name, term in self.unlabeled_losses(unlabeled).items()}
        return terms
