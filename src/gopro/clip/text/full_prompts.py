"""Prompts padded to the full context length, one sequence per image and class: slow, but correct for any tower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gopro.clip.text.prompts import ClassValues, Contexts, Prompts


class FullPrompts(Prompts):
    """Prompts padded to the tower's context length.

    They serve the towers that `PackedPrompts` cannot encode, and as its reference in tests. `memory` limits them only
    without gradient.
    """

    def _encode(self, contexts: Contexts) -> Iterator[ClassValues]:
        length = self.tower.context_length
        if torch.is_grad_enabled() and contexts.requires_grad:
            chunk = len(self)
        else:
            plan = self.memory_plan(contexts.batch, len(self) * length, training=False)
            chunk = min(len(self), max(1, 2 * plan.chunk_tokens // length))  # the plan leaves half of the budget unused
        for classes in torch.arange(len(self), device=self.tower.device).split(chunk):
            yield classes, self._encode_classes(classes.tolist(), _of_classes(contexts, classes))

    def _encode_classes(self, classes: Sequence[int], contexts: Contexts) -> Float[Tensor, "batch classes embed"]:
        tower, (before, after, deep, upper), batch = self.tower, contexts, contexts.batch
        head = [] if tower.sos is None else [tower.sos]
        rows = [head + [0] * self.before + self.body_ids[c] for c in classes]
        ids = torch.tensor([row + [tower.pad] * (tower.context_length - len(row)) for row in rows], device=tower.device)
        x = tower.token_embedding(ids).expand(batch, -1, -1, -1).clone()
        context = slice(self.start, self.start + self.before)
        x[:, :, context] = before.to(x.dtype)
        for row, c in enumerate(classes):
            name_end = self.start + self.before + self.name_lengths[c]
            x[:, row, name_end : name_end + self.after] = after[:, row if after.shape[1] > 1 else 0].to(x.dtype)
        x = (x + tower.positional_embedding).flatten(0, 1)  # [batch * classes, context_length, d]
        for layer, block in enumerate(tower.blocks):
            if 0 < layer <= len(deep):
                x = x.unflatten(0, (batch, len(classes))).clone()
                x[:, :, context] = deep[layer - 1].to(x.dtype)
                x = x.flatten(0, 1)
            if (at := layer - len(tower.blocks) + len(upper)) < 0:
                x = block(x, attn_mask=tower.mask)
            else:
                x = self._insert(x, upper[at])
                x = self._remove(block(x, attn_mask=self._mask(len(upper[at]))), len(upper[at]))
        x = x.unflatten(0, (batch, len(classes)))
        if tower.pool == "first":
            x = x[:, :, 0]
        elif tower.pool == "last":
            x = x[:, :, -1]
        else:
            eot = torch.tensor([len(row) - 1 for row in rows], device=x.device)
            x = x[:, torch.arange(len(classes), device=x.device), eot]
        return tower.project(x)

    def _insert(self, x: Float[Tensor, "rows length width"], tokens: Float[Tensor, "tokens width"]) -> Tensor:
        """Insert tokens after SOS into every row."""
        return torch.cat([x[:, : self.start], tokens.to(x.dtype).expand(len(x), -1, -1), x[:, self.start :]], dim=1)

    def _remove(self, x: Float[Tensor, "rows length width"], count: int) -> Tensor:
        """Remove the tokens after SOS from every row."""
        return torch.cat([x[:, : self.start], x[:, self.start + count :]], dim=1)

    def _mask(self, extra: int) -> Tensor | None:
        """Return the tower's attention mask for rows with `extra` tokens."""
        if self.tower.mask is None:
            return None
        length = self.tower.context_length + extra
        return torch.full((length, length), float("-inf"), device=self.tower.device).triu(1)


def _of_classes(contexts: Contexts, classes: Tensor) -> Contexts:
    """Return the contexts of some classes."""

    def pick(context: Tensor) -> Tensor:
        return context[:, classes] if context.shape[1] > 1 else context

    return Contexts(pick(contexts.before), pick(contexts.after), [*map(pick, contexts.deep)], contexts.upper)
