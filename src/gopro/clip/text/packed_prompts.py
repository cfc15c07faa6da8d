"""Exact packed encoding of prompts on a causal text tower.

In a causal tower a token attends only to those before it, and the features are read at EOT alone. Therefore

- nothing after EOT is computed;
- SOS is encoded once;
- a context that all classes share is encoded once per image, and its keys and values serve every class;
- the classes' own tokens are laid end to end without padding: the linear layers see one long sequence, and only
  attention knows where a class begins;
- the last layer computes the EOT queries alone.

Shapes: B images (or 1), T tokens of a chunk of classes, C classes, P tokens of the shared prefix, H heads, d width.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gopro.clip.faster_layers.frozen_block import add_attention, add_mlp, attention_inputs, mlp_hidden
from gopro.clip.open_clip_internals import ResidualAttentionBlock
from gopro.clip.text.memory_plan import Keep
from gopro.clip.text.packed_attention import KeysValues, append_keys_values, attend, attend_in_block
from gopro.clip.text.packed_layout import Chunk, LengthGroup, lay_out, split_by_tokens
from gopro.clip.text.prompts import ClassValues, Contexts, Prompts
from gopro.clip.text.recompute import recompute
from gopro.clip.text.tower import TextTower

MAX_LAYOUTS = 8
"""Number of layouts to cache. Each batch size may need its own: training and evaluation use a few, a server many."""


class PackedPrompts(Prompts):
    """Prompts of a fixed list of classes on a causal tower, packed; see `memory_plan` for `memory`."""

    def __init__(self, tower: TextTower, classnames: Sequence[str], **layout: Any):
        super().__init__(tower, classnames, **layout)
        self._layouts: dict[tuple[int, bool], tuple[Chunk, ...]] = {}
        with torch.inference_mode(False), torch.no_grad():
            self.sos = self._encode_prefix(tower.token_embedding(torch.tensor([[tower.sos]], device=tower.device)))

    @staticmethod
    def fits(tower: TextTower) -> bool:
        """Return whether packing is exact for this tower: causal, with SOS, and made of plain residual blocks."""
        plain = all(type(block) is ResidualAttentionBlock for block in tower.blocks)
        return tower.causal and tower.sos is not None and plain

    def subset(self, classes: Sequence[int]) -> Self:
        other = super().subset(classes)
        other._layouts = {}
        return other

    def for_export(self) -> Self:
        """Return the same prompts in a form that a graph can hold.

        They hold the embeddings of their own tokens alone, with token ids as indices into these, and encode all classes
        in one chunk for any number of images.
        """
        other = copy.copy(self)
        ids = sorted({token for body in self.body_ids for token in body})
        index = {token: i for i, token in enumerate(ids)}
        other.tower = copy.copy(self.tower)
        other.tower.token_embedding = nn.Embedding.from_pretrained(self.tower.token_embedding.weight[ids])
        other.body_ids = [[index[token] for token in body] for body in self.body_ids]
        other.memory, other._layouts = None, {}
        return other

    @property
    def tokens(self) -> int:
        """The tokens of all classes after the context that they share."""
        return sum(map(len, self.body_ids))

    def _encode(self, contexts: Contexts) -> Iterator[ClassValues]:
        batch, class_specific = contexts.batch, contexts.class_specific
        prefix = self._add_upper(contexts.upper)
        if not class_specific:
            before, deep = contexts.before[:, 0], [replacement[:, 0] for replacement in contexts.deep]
            prefix = self._encode_prefix(before, deep, after=prefix)
            contexts = contexts._replace(before=contexts.before[:, :, :0], deep=())
        tokens = self.tokens + (self.before * len(self) if class_specific else 0)
        training = torch.is_grad_enabled() and (contexts.requires_grad or any(t.requires_grad for t in prefix[-1]))
        plan = self.memory_plan(batch, tokens, training)
        encoded = 0
        for chunk in self._chunks(min(plan.chunk_tokens, tokens), class_specific):
            encoded += len(chunk.ids)
            yield chunk.classes, self._encode_chunk(chunk, contexts, prefix, plan.mode(encoded))

    def _encode_prefix(
        self,
        context: Float[Tensor, "batch length width"],
        deep: Sequence[Tensor] = (),
        after: Sequence[KeysValues] | None = None,
    ) -> Sequence[KeysValues]:
        """Encode a context that all classes share; return the keys and values of each layer, with those of `after`."""
        length = context.shape[1]
        if length == 0 and after is not None:
            return after
        tower = self.tower
        start = 0 if after is None else self.start
        x = context + tower.positional_embedding[start : start + length]
        layers: list[KeysValues] = []
        for layer, block in enumerate(tower.blocks):
            if 0 < layer <= len(deep):
                x = deep[layer - 1].to(x.dtype)
            qkv = attention_inputs(block, x)
            earlier = None if after is None else after[layer]
            layers.append(append_keys_values(earlier, qkv))
            if layer + 1 < len(tower.blocks):
                attended = attend(qkv, *(earlier or ()), groups=(LengthGroup(1, length),))
                x = _finish_block(block, x, attended)
        return layers

    def _add_upper(self, upper: Sequence[Float[Tensor, "tokens width"]]) -> Sequence[KeysValues]:
        """Return the keys and values of SOS, with those of the tokens after it in the last layers.

        These tokens need no queries: the next layer replaces whatever a layer makes of them.
        """
        first = len(self.sos) - len(upper)
        layers = list(self.sos[:first])
        for sos, block, tokens in zip(self.sos[first:], self.tower.blocks[first:], upper, strict=True):
            layers.append(append_keys_values(sos, attention_inputs(block, tokens[None])))
        return layers

    def _encode_chunk(
        self, chunk: Chunk, contexts: Contexts, prefix: Sequence[KeysValues], keep: Keep
    ) -> Float[Tensor, "batch classes embed"]:
        if keep is Keep.RECOMPUTE_ALL:

            def encode(before: Tensor, after: Tensor, *rest: Tensor) -> Tensor:
                deep, flat = rest[: len(contexts.deep)], rest[len(contexts.deep) :]
                keys_values = list(zip(flat[::2], flat[1::2], strict=True))
                return self._encode_chunk(chunk, Contexts(before, after, deep, ()), keys_values, Keep.KEEP_ALL)

            return recompute(encode, contexts.before, contexts.after, *contexts.deep, *chain(*prefix))
        tower, inner = self.tower, keep is Keep.RECOMPUTE_INNER
        positions = tower.positional_embedding[chunk.positions]
        x = (tower.token_embedding(chunk.ids) + positions)[None]  # [1, T, d], shared by all images while it can be
        x = _insert_context(x, chunk.before_at, contexts.before, chunk, positions)
        x = _insert_context(x, chunk.after_at, contexts.after, chunk, positions)
        for layer, block in enumerate(tower.blocks):
            if 0 < layer <= len(contexts.deep):
                x = _insert_context(x, chunk.before_at, contexts.deep[layer - 1], chunk)
            last = layer + 1 == len(tower.blocks)
            attention = partial(attend_in_block, block, chunk.groups, last)
            attended = recompute(attention, x, *prefix[layer]) if inner else attention(x, *prefix[layer])
            x = _finish_block(block, x[:, chunk.eot] if last else x, attended, inner)
        return tower.project(x)

    def _chunks(self, limit: int, class_specific: bool) -> tuple[Chunk, ...]:
        """Return the classes in chunks of at most `limit` tokens, laid out once for each limit."""
        key = (limit, class_specific)
        if key not in self._layouts:
            own = self.before if class_specific else 0
            chunks = split_by_tokens([own + len(body) for body in self.body_ids], limit)
            context, device = (self.before, own, self.after), self.tower.device
            layout = tuple(lay_out(c, self.body_ids, self.name_lengths, context, device) for c in chunks)
            if len(self._layouts) >= MAX_LAYOUTS:
                del self._layouts[next(iter(self._layouts))]
            self._layouts[key] = layout
        return self._layouts[key]


def _insert_context(x: Tensor, at: Tensor, context: Tensor, chunk: Chunk, positions: Tensor | None = None) -> Tensor:
    """Return x [B or 1, T, d] with context vectors at the tokens `at` [c, S].

    Args:
        context: [B or 1, classes or 1, S, d].
        positions: positional embeddings [T, d] to add to the context vectors.
    """
    if at.numel() == 0:
        return x
    if context.shape[1] > 1:
        context = context[:, chunk.classes]
    if positions is not None:
        context = context + positions[at]
    x = x.expand(max(x.shape[0], context.shape[0]), -1, -1).clone()
    x[:, at] = context.to(x.dtype).expand(x.shape[0], *at.shape, -1)
    return x


def _finish_block(block: ResidualAttentionBlock, x: Tensor, attended: Tensor, recompute_inner: bool = False) -> Tensor:
    """Return a block's output from its input and its attention."""
    x = add_attention(block, x, attended)
    hidden = partial(mlp_hidden, block)
    return add_mlp(block, x, recompute(hidden, x) if recompute_inner else hidden(x))
