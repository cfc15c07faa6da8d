"""Prompts of a list of classes, and their encoding at full length.

A prompt is `[SOS, before, name, after, tail, EOT]`: `before` and `after` are context vectors (learned, generated, or
the embeddings of ordinary words), the rest are fixed tokens.
"""

from __future__ import annotations

import copy
import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from gopro.clip.similarity import similarity
from gopro.clip.text_tower import TextTower
from gopro.errors import InputError

# What autograd keeps of a token and layer whose weights are frozen, in multiples of the width: 10 were measured, at
# the highest (inputs of the norms, queries, keys, values and copies of them, the MLP's hidden layer).
SAVED_WIDTHS = 11
# And where attention and MLP are computed again: what each starts from.
LEAN_WIDTHS = 2
# And what the work on a layer takes of a token at its highest where nothing is kept: 17 were measured with GELU, 21
# with QuickGELU.
WORKING_WIDTHS = 21

CONTROLS = "[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]"
"""Characters that are no part of a word, but tell terminals and editors what to do; a regular expression."""

LONGEST = 1000
"""Characters of a class name: more than any text tower takes, fewer than what keeps a tokenizer busy for hours."""

Part = tuple[Tensor, Tensor]  # classes [C] of the list, and what is theirs, [B, C, ...]


class Prompts(ABC):
    """The prompts of a fixed list of classes; called with context vectors, gives their text features.

    `body_ids[c]` are the tokens that follow the `before` context: name, `after` placeholders (0), tail, EOT.

    Args:
        memory: bytes that activations may take, None for any number; classes that find no room in it go through in
            chunks. The result never depends on it beyond rounding.
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
        self.after_at: list[int] = []
        for classname in classnames:
            if len(classname) > LONGEST:
                raise InputError(f"class name {classname[:40]!r}... has {len(classname)} characters: shorten it")
            if re.search(CONTROLS, classname):
                raise InputError(f"class name {classname!r} has control characters: give it a name in words")
            name = tower.tokens(classname)
            if not name or tower.eot in name or tower.sos in name:
                raise InputError(f"class name {classname!r} has no token or a reserved one: give it a name in words")
            # Without context behind the name, name and tail are one text, as the tokenizer was trained to see it.
            body = [*name, *[0] * after, *tower.tokens(tail)] if after else tower.tokens(classname + tail)
            length = self.start + before + len(body) + 1
            if length > tower.context_length:
                raise InputError(
                    f"the prompt of class {classname!r} has {length} tokens, "
                    f"the text tower takes {tower.context_length}: shorten the name or the context"
                )
            self.body_ids.append([*body, tower.eot])
            self.after_at.append(len(name))

    def __len__(self) -> int:
        return len(self.body_ids)

    def some(self, classes: Sequence[int]) -> Self:
        """The prompts of these classes alone, by their places in the list."""
        other = copy.copy(self)
        other.body_ids = [self.body_ids[c] for c in classes]
        other.after_at = [self.after_at[c] for c in classes]
        return other

    def __call__(
        self,
        before: Tensor | None = None,
        after: Tensor | None = None,
        deep: Sequence[Tensor] = (),
        upper: Sequence[Float[Tensor, "tokens width"]] = (),
    ) -> Float[Tensor, "batch classes embed"]:
        """Unit text features of every class under these contexts.

        Args:
            before: [before, d] for all, [batch, before, d] one an image, or [batch or 1, classes, before, d].
            after: likewise, [.., after, d].
            deep: for layers 1, 2, ... what replaces the hidden states of `before` at the layer's input (as MaPLe's
                deep prompts), each shaped as `before`.
            upper: for as many of the last layers, the hidden states of tokens that stand behind SOS at that layer's
                input, in front of all else, and are not there below (as MMRL's representation tokens). All layers have
                the same number of them; they have no positional embedding and take no room of the context length.

        Returns:
            [batch, classes, D]; batch is 1 where no context is an image's own.
        """
        return _in_order(self._parts(*self._contexts(before, after, deep, upper)))

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
        """Dot products of image features with the text features of every class under these contexts.

        Without gradient the features of a chunk of classes are let go before the next is encoded: beside the result,
        memory does not grow with the number of classes.

        Args:
            image: [batch, dim].
            before, after, deep, upper: as in a call.
            transform: what becomes of text features [batch or 1, some classes, D] on their way to [.., dim], each class
                by itself.
        """
        parts = self._parts(*self._contexts(before, after, deep, upper))
        return _in_order((classes, similarity(image, transform(text))) for classes, text in parts)

    def _contexts(
        self, before: Tensor | None, after: Tensor | None, deep: Sequence[Tensor], upper: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor, Sequence[Tensor], Sequence[Tensor]]:
        """All in the shapes that `_parts` takes."""
        shaped = [self._shaped(context, self.before, "before") for context in (before, *deep)]
        if len({tokens.shape for tokens in upper}) > 1 or len(upper) > len(self.tower.blocks):
            raise ValueError(f"upper tokens for {len(upper)} of {len(self.tower.blocks)} layers, not all of one shape")
        return shaped[0], self._shaped(after, self.after, "after"), shaped[1:], upper

    def _shaped(self, context: Tensor | None, length: int, name: str) -> Float[Tensor, "batch classes length width"]:
        """A context as [batch or 1, classes or 1, length, d]."""
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

    def _room(self, batch: int, widths: int) -> int:
        """For how many tokens of `batch` images there is memory, if each takes so many widths."""
        if self.memory is None:
            return sys.maxsize
        return self.memory // (batch * self.tower.width * 4 * widths)

    @abstractmethod
    def _parts(self, before: Tensor, after: Tensor, deep: Sequence[Tensor], upper: Sequence[Tensor]) -> Iterator[Part]:
        """All classes chunk by chunk, each with its unit features [batch, C, D]."""


def _in_order(parts: Iterable[Part]) -> Tensor:
    """What all classes have, [B, classes, ...], in their order."""
    classes, values = zip(*parts, strict=True)
    return torch.cat(values, dim=1)[:, torch.cat(classes).argsort()]


class FullPrompts(Prompts):
    """Every prompt at its full context length, one sequence an (image, class): plain, slow, right for any tower."""

    def _parts(self, before: Tensor, after: Tensor, deep: Sequence[Tensor], upper: Sequence[Tensor]) -> Iterator[Part]:
        given = (before, after, *deep)
        batch = max(context.shape[0] for context in given)
        needs_grad = torch.is_grad_enabled() and any(t.requires_grad for t in (*given, *upper))
        together = len(self) if needs_grad else max(1, self._room(batch, WORKING_WIDTHS) // self.tower.context_length)
        for classes in torch.arange(len(self), device=self.tower.device).split(together):
            own = [context[:, classes] if context.shape[1] > 1 else context for context in given]
            yield classes, self._encode(classes.tolist(), own[0], own[1], own[2:], upper)

    def _encode(
        self,
        chunk: Sequence[int],
        before: Tensor,
        after: Tensor,
        deep: Sequence[Tensor],
        upper: Sequence[Tensor],
    ) -> Float[Tensor, "batch classes embed"]:
        tower, classes = self.tower, len(chunk)
        batch = max(context.shape[0] for context in (before, after, *deep))
        head = [] if tower.sos is None else [tower.sos]
        rows = [head + [0] * self.before + self.body_ids[c] for c in chunk]
        ids = torch.tensor([row + [tower.pad] * (tower.context_length - len(row)) for row in rows], device=tower.device)
        x = tower.token_embedding(ids).expand(batch, -1, -1, -1).clone()
        context = slice(self.start, self.start + self.before)
        x[:, :, context] = before.to(x.dtype)
        for c, at in enumerate(self.after_at[c] + self.start + self.before for c in chunk):
            x[:, c, at : at + self.after] = after[:, c if after.shape[1] > 1 else 0].to(x.dtype)
        x = (x + tower.positional_embedding).flatten(0, 1)  # [batch * classes, context_length, d]
        for layer, block in enumerate(tower.blocks):
            if 0 < layer <= len(deep):
                x = x.unflatten(0, (batch, classes)).clone()
                x[:, :, context] = deep[layer - 1].to(x.dtype)
                x = x.flatten(0, 1)
            if (at := layer - len(tower.blocks) + len(upper)) < 0:
                x = block(x, attn_mask=tower.mask)
            else:
                x = self._without(block(self._with(x, upper[at]), attn_mask=self._mask_with(upper[at])), upper[at])
        x = x.unflatten(0, (batch, classes))
        if tower.pool == "first":
            x = x[:, :, 0]
        elif tower.pool == "last":
            x = x[:, :, -1]
        else:
            eot = torch.tensor([len(row) - 1 for row in rows], device=x.device)
            x = x[:, torch.arange(classes, device=x.device), eot]
        return tower.project(x)

    def _with(self, x: Float[Tensor, "rows length width"], tokens: Float[Tensor, "tokens width"]) -> Tensor:
        """The rows with these tokens behind SOS, [rows, length + tokens, width]."""
        return torch.cat([x[:, : self.start], tokens.to(x.dtype).expand(len(x), -1, -1), x[:, self.start :]], dim=1)

    def _without(self, x: Float[Tensor, "rows length width"], tokens: Float[Tensor, "tokens width"]) -> Tensor:
        """The rows without them again."""
        return torch.cat([x[:, : self.start], x[:, self.start + len(tokens) :]], dim=1)

    def _mask_with(self, tokens: Float[Tensor, "tokens width"]) -> Tensor | None:
        """The tower's mask, for rows with these tokens."""
        if self.tower.mask is None:
            return None
        length = self.tower.context_length + len(tokens)
        return torch.full((length, length), float("-inf"), device=self.tower.device).triu(1)
