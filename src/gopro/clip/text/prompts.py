"""Prompts of a list of classes: their tokens, and the interface for encoding them under a context.

A prompt is `[SOS, before, name, after, tail, EOT]`. `before` and `after` are context vectors: learned, generated, or
the embeddings of ordinary words. Everything else is fixed tokens.
"""

from __future__ import annotations

import copy
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from gopro.clip.similarity import similarity
from gopro.clip.text.memory_plan import MemoryPlan
from gopro.clip.text.tower import TextTower
from gopro.errors import InputError

CONTROL_CHARACTERS = "[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
"""Regular expression of the characters that control terminals and editors; class names must not contain them."""

MAX_NAME_CHARACTERS = 1000
"""More than any text tower takes, and few enough for the tokenizer, whose time grows with the square of the length."""

ClassValues = tuple[Tensor, Tensor]
"""Indices [C] of some classes, and their values [B, C, ...]."""


class Contexts(NamedTuple):
    """The context vectors of a call, in the shapes that encoding works with.

    Attributes:
        before, after: [B or 1, C or 1, length, d].
        deep: for layers 1, 2, ..., each shaped as `before`.
        upper: for the last layers, each [tokens, d].
    """

    before: Tensor
    after: Tensor
    deep: Sequence[Tensor]
    upper: Sequence[Tensor]

    @property
    def batch(self) -> int:
        return max(context.shape[0] for context in (self.before, self.after, *self.deep))

    @property
    def class_specific(self) -> bool:
        """True if the context before the names differs between classes, so that they cannot share its encoding."""
        return any(context.shape[1] > 1 for context in (self.before, *self.deep))

    @property
    def requires_grad(self) -> bool:
        return any(context.requires_grad for context in (self.before, self.after, *self.deep, *self.upper))


class Prompts(ABC):
    """Prompts of a fixed list of classes; called with context vectors, they return text features.

    Args:
        before, after: the number of context vectors before and after the class name.
        tail: the text after them.
        memory: bytes that activations may take, None for no limit. Classes that do not fit are encoded in chunks, which
            changes the result by no more than rounding.

    Attributes:
        body_ids: for each class, the token ids after the `before` context: name, `after` placeholders (0), tail, EOT.
        name_lengths: for each class, the number of tokens of its name.

    Raises:
        InputError: there is no class; a class name cannot be encoded; a prompt exceeds the tower's context length.
    """

    def __init__(
        self,
        tower: TextTower,
        classnames: Sequence[str],
        *,
        before: int = 0,
        after: int = 0,
        tail: str = ".",
        memory: int | None = 2 << 30,
    ):
        if not classnames:
            raise InputError("no class names: give at least one")
        self.tower = tower
        self.before, self.after = before, after
        self.memory = memory
        self.start = 0 if tower.sos is None else 1
        self.body_ids: list[list[int]] = []
        self.name_lengths: list[int] = []
        for classname in classnames:
            name = _name_tokens(tower, classname)
            # Without context after the name, name and tail are tokenized as one text, as in CLIP's training captions.
            body = [*name, *[0] * after, *tower.tokens(tail)] if after else tower.tokens(classname + tail)
            length = self.start + before + len(body) + 1
            if length > tower.context_length:
                raise InputError(
                    f"the prompt of class {classname!r} has {length} tokens, but the text tower takes at most "
                    f"{tower.context_length}: shorten the name or the context"
                )
            self.body_ids.append([*body, tower.eot])
            self.name_lengths.append(len(name))

    def __len__(self) -> int:
        return len(self.body_ids)

    def subset(self, classes: Sequence[int]) -> Self:
        """Return the prompts of the classes with these indices."""
        other = copy.copy(self)
        other.body_ids = [self.body_ids[c] for c in classes]
        other.name_lengths = [self.name_lengths[c] for c in classes]
        return other

    def __call__(
        self,
        before: Tensor | None = None,
        after: Tensor | None = None,
        deep: Sequence[Tensor] = (),
        upper: Sequence[Float[Tensor, "tokens width"]] = (),
    ) -> Float[Tensor, "batch classes embed"]:
        """Return unit text features of every class under these contexts.

        Args:
            before: context vectors before the name: [before, d] for all images and classes, [batch, before, d] per
                image, or [batch or 1, classes, before, d] per class.
            after: context vectors after the name, [..., after, d] likewise.
            deep: for layers 1, 2, ..., the hidden states that replace those of `before` at the layer's input (the deep
                prompts of MaPLe, arXiv 2210.03117), each shaped as `before`.
            upper: for the last `len(upper)` layers, the hidden states of extra tokens right after SOS at the layer's
                input (the representation tokens of MMRL, arXiv 2503.08497). Every layer has the same number of them.
                They have no positional embedding and do not count towards the context length.

        Returns:
            [batch, classes, D]; batch is 1 if no context is per image.
        """
        return _in_class_order(self._encode(self._contexts(before, after, deep, upper)))

    def similarities(
        self,
        image: Float[Tensor, "batch dim"],
        before: Tensor | None = None,
        after: Tensor | None = None,
        deep: Sequence[Tensor] = (),
        upper: Sequence[Float[Tensor, "tokens width"]] = (),
        *,
        transform: Callable[[Tensor], Tensor] = lambda text: text,
    ) -> Float[Tensor, "batch classes"]:
        """Return the dot products of image features with the text features of every class under these contexts.

        Without gradient, a chunk's text features are freed before the next chunk is encoded, so that memory beyond the
        result does not grow with the number of classes.

        Args:
            image: [batch, dim].
            before, after, deep, upper: as in a call.
            transform: maps text features [batch or 1, some classes, D] to [..., dim], each class by itself.
        """
        chunks = self._encode(self._contexts(before, after, deep, upper))
        return _in_class_order((classes, similarity(image, transform(text))) for classes, text in chunks)

    def _contexts(
        self, before: Tensor | None, after: Tensor | None, deep: Sequence[Tensor], upper: Sequence[Tensor]
    ) -> Contexts:
        before, *deep = (self._shaped(context, self.before, "before") for context in (before, *deep))
        if len({tokens.shape for tokens in upper}) > 1 or len(upper) > len(self.tower.blocks):
            raise ValueError(
                f"upper tokens are given for {len(upper)} of {len(self.tower.blocks)} layers with shapes "
                f"{[tuple(tokens.shape) for tokens in upper]}: give one shape, for at most all layers"
            )
        return Contexts(before, self._shaped(after, self.after, "after"), deep, upper)

    def _shaped(self, context: Tensor | None, length: int, name: str) -> Float[Tensor, "batch classes length width"]:
        """Return a context as [batch or 1, classes or 1, length, d]."""
        if context is None:
            context = torch.zeros(0, self.tower.width, device=self.tower.device)
        if context.ndim == 2:
            context = context[None, None]
        elif context.ndim == 3:
            context = context[:, None]
        if context.shape[2:] != (length, self.tower.width) or context.shape[1] not in (1, len(self)):
            raise ValueError(
                f"context {name} has shape {tuple(context.shape)}, expected "
                f"[batch, 1 or {len(self)}, {length}, {self.tower.width}]"
            )
        return context if length else context[:1, :1]

    def memory_plan(self, batch: int, tokens: int, training: bool) -> MemoryPlan:
        """Plan the encoding of `tokens` tokens of classes for `batch` images within `memory`."""
        vector_bytes = 4 * self.tower.width * batch
        return MemoryPlan.for_budget(self.memory, tokens, vector_bytes, len(self.tower.blocks), training)

    @abstractmethod
    def _encode(self, contexts: Contexts) -> Iterator[ClassValues]:
        """Yield the unit features [B, C, D] of all classes, chunk by chunk."""


def _name_tokens(tower: TextTower, classname: str) -> list[int]:
    """Return the token ids of a class name.

    Raises:
        InputError: it has no token, control characters, reserved tokens, or too many characters.
    """
    if len(classname) > MAX_NAME_CHARACTERS:
        raise InputError(
            f"class name {classname[:40]!r}... has {len(classname)} characters: shorten it to {MAX_NAME_CHARACTERS}"
        )
    if re.search(CONTROL_CHARACTERS, classname):
        raise InputError(f"class name {classname!r} has control characters: give it a name in words")
    tokens = tower.tokens(classname)
    if not tokens or tower.eot in tokens or tower.sos in tokens:
        raise InputError(f"class name {classname!r} has no token or a reserved one: give it a name in words")
    return tokens


def _in_class_order(chunks: Iterable[ClassValues]) -> Tensor:
    """Join the values of all classes, [B, classes, ...], in the order of the class list."""
    classes, values = zip(*chunks, strict=True)
    return torch.cat(values, dim=1)[:, torch.cat(classes).argsort()]
