"""What every method is: the one interface by which training, evaluation, serving and the report know it."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Self

from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone
from gopro.clip.similarity import similarity
from gopro.clip.text_tower import TextTower
from gopro.data.transforms import ViewName
from gopro.errors import InputError
from gopro.methods.recipe import Recipe, Training


class Method(nn.Module):
    """A classifier over class names on a frozen CLIP.

    The module's parameters and buffers are what is learned, and nothing else: the backbone and the class names stay
    out of them, so that a state dict is small and fits any class names.

    Attributes:
        config: its settings; on the class, the defaults.
        trained_by: gradient steps on `losses`, one call of `solve`, both, or nothing.
        recipe: optimiser and schedule of the steps, unless a run's settings say otherwise.
        frozen_images: whether the image tower is as it was, so that what it says of an image can be kept. A method
            that learns inside the tower has no such part: its `encode` gives the images themselves.
        views: which views of an image a training step needs, the plain one first.
        draws: how many random draws of its first view `solve` is given; 0 for the evaluation view alone.
    """

    config: Any
    trained_by: ClassVar[Training] = Training.STEPS
    recipe: ClassVar[Recipe] = Recipe()
    frozen_images: bool = True
    views: tuple[ViewName, ...] = ("base",)
    draws: int = 0

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: Any):
        super().__init__()
        self.backbone = backbone
        self.config = config
        self.set_classes(classnames)

    def set_classes(self, classnames: Sequence[str]) -> None:
        """Prepares what depends on the class names. Methods extend it; nothing learned may be touched."""
        self.classnames = tuple(classnames)

    def for_classes(self, classnames: Sequence[str]) -> Self:
        """The same learned state, shared, over other class names.

        Raises:
            InputError: no names, or one that the text tower cannot take.
        """
        other = copy.copy(self)
        other.set_classes(classnames)
        return other

    def encode(self, images: Float[Tensor, "*batch 3 size size"]) -> Any:
        """The part that no learned parameter touches: `Encoded` [*batch], or the images where there is none."""
        return self.backbone.encode(images) if self.frozen_images else images

    def image_features(self, encoded: Any) -> Float[Tensor, "*batch embed"]:
        """The unit image features of images [*batch] that the logits are made of; the embeddings, unless a method
        makes others of them.

        Args:
            encoded: what `encode` gives.
        """
        return encoded.embedding

    def class_features(self, encoded: Any) -> Float[Tensor, "#batch classes embed"]:
        """The unit text features that the logits compare images [batch] with: [batch, classes, D], or
        [1, classes, D] where they are the same for all images.

        Args:
            encoded: what `encode` gives.

        Raises:
            InputError: the method compares images with no text.
        """
        return self.class_vectors(self.image_contexts(encoded))[..., : self.backbone.embed_dim]

    def image_contexts(self, encoded: Any) -> Float[Tensor, "batch tokens width"] | None:
        """The context that each image generates, of which its text features are made; None where they are the same
        for all images."""
        return None

    def image_vectors(self, encoded: Any) -> Float[Tensor, "batch dim"]:
        """The images' side of the logits: their image features, unless a method compares more than these."""
        return self.image_features(encoded)

    def class_vectors(self, contexts: Tensor | None = None) -> Float[Tensor, "#batch classes dim"]:
        """The classes' side of the logits: their text features, and behind them what else a method compares.

        Args:
            contexts: what `image_contexts` gives.
        """
        raise InputError(f"{type(self).__name__} compares images with no text: there are no text features")

    def solve(
        self, draws: Iterable[Any], labels: Int[Tensor, " n"], val: tuple[Any, Int[Tensor, " val"]] | None = None
    ) -> None:
        """Takes what it can from all training images at once, without steps. The same again gives the same bits.

        Args:
            draws: what `encode` gives for a view of every training image, [n], one draw after the other.
            labels: [n].
            val: the evaluation view of the validation images, [val], and their labels, where there are any.
        """
        raise NotImplementedError(f"{type(self).__name__} is not solved")

    def logits(self, encoded: Any) -> Float[Tensor, "batch classes"]:
        """Scaled products of the images' and the classes' side; their softmax are the probabilities.

        Args:
            encoded: what `encode` gives for images [batch].
        """
        classes = self.class_vectors(self.image_contexts(encoded))
        return self.backbone.logit_scale * similarity(self.image_vectors(encoded), classes)

    def losses(self, encoded: Any, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        """Loss terms by name, already weighted; their sum is stepped on.

        On several devices the batch is one's share of it: a term that is a mean over images is right as it is, one
        that compares images with one another takes them through `gopro.distributed.gather`.

        Args:
            encoded: what `encode` gives for the views of a batch, [views, batch], in the order of `views`.
            labels: [batch].
        """
        raise NotImplementedError(f"{type(self).__name__} is not trained")

    def end_epoch(self, epoch: int, epochs: int) -> None:
        """Called in training after each of `epochs` epochs, counted from 0, before its state is saved or judged."""

    def forward(self, encoded: Any, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        """The losses: a wrapped module must be called for its gradients to be synchronised."""
        return self.losses(encoded, labels)


def split_template(template: str) -> tuple[str, str]:
    """What stands before and behind the class name in a prompt template.

    Raises:
        InputError: the template does not hold exactly one `{}`.
    """
    if template.count("{}") != 1:
        raise InputError(f"template {template!r}: write {{}} exactly once, where the class name goes")
    before, _, behind = template.partition("{}")
    return before.strip(), behind


def split_context_template(template: str) -> tuple[str, str]:
    """As `split_template`, for methods that learn the words before the class name.

    Raises:
        InputError: also where no word stands before the `{}`.
    """
    before, behind = split_template(template)
    if not before:
        raise InputError(f"template {template!r}: the context starts from the words before {{}}, and there are none")
    return before, behind


def split_context_tokens(template: str, tokens: int, text: TextTower) -> tuple[str, str, str]:
    """As `split_context_template`, for methods that learn only the first `tokens` tokens of the words.

    Returns: the words to learn, the words that stay between them and the class name, what follows it.

    Raises:
        InputError: also where no word ends with that token.
    """
    before, behind = split_context_template(template)
    words = before.split()
    for i in range(1, len(words) + 1):
        if len(text.tokens(" ".join(words[:i]))) == tokens:
            return " ".join(words[:i]), " ".join(words[i:]), behind
    raise InputError(
        f"template {template!r}: no word before {{}} ends with token {tokens}, up to which the context is learned; "
        "choose other words or another number of tokens"
    )
