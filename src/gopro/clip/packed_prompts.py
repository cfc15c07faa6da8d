"""Exact packed encoding of prompts on a causal text tower.

A token of a causal tower sees only what stands before it, and the tower is read at EOT alone. So nothing after EOT is
computed; SOS is computed once; a context that all classes share is computed once an image, its keys and values serving
every class; the classes' own tokens are laid end to end without padding, so that the linear layers see one long
sequence and only attention knows where a class begins; and the last layer computes the EOT queries alone.

Names in shapes: B images (or 1), T tokens of a chunk of classes, C classes, P shared positions, H heads, d width.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain
from typing import Any, Self

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gopro.clip.prompts import LEAN_WIDTHS, SAVED_WIDTHS, WORKING_WIDTHS, Part, Prompts
from gopro.clip.text_tower import TextTower

KeysValues = tuple[Tensor, Tensor]  # each [B, H, P, d/H]

# Where not all activations can be kept, classes go through in chunks, of which one takes this part of the memory while
# it is worked on. The rest is for what is kept.
PARTS = 8

# Layouts of the classes that are kept: the size of a batch may ask for one of its own, and training and evaluation have
# a few of these; a server has many.
LAYOUTS = 8


@dataclass(frozen=True)
class Run:
    """Neighbouring classes of one length: `count` classes of `length` tokens from token `start` of the chunk."""

    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        return self.start + self.count * self.length


@dataclass(frozen=True)
class Chunk:
    """Classes that are encoded together.

    `classes` [C] index the class list; `ids` and `positions` [T] are the tokens and their places in the prompt;
    `before_at` and `after_at` [C, slots] say where a class's own context goes; `eot` [C] is the token that is read.
    """

    classes: Tensor
    ids: Tensor
    positions: Tensor
    before_at: Tensor
    after_at: Tensor
    eot: Tensor
    runs: tuple[Run, ...]


class PackedPrompts(Prompts):
    """Prompts of a fixed list of classes on a causal tower, packed.

    Where training finds no room in `memory` for all that autograd would keep, a layer keeps what its attention and its
    MLP start from, for a fifth of the room, and computes in backward again what lies between, for nearly six tenths of
    a forward pass; and classes that find no room even so are computed again as a whole.
    """

    def __init__(self, tower: TextTower, classnames: Sequence[str], **layout: Any):
        super().__init__(tower, classnames, **layout)
        self._chunked: dict[tuple[int, bool], tuple[Chunk, ...]] = {}
        with torch.inference_mode(False), torch.no_grad():
            self.sos = self._prefix(tower.token_embedding(torch.tensor([[tower.sos]], device=tower.device)))

    @staticmethod
    def fits(tower: TextTower) -> bool:
        """Whether packing is exact for this tower: causal, a SOS in front, plain residual blocks."""
        plain = all(type(block) is ResidualAttentionBlock for block in tower.blocks)
        return tower.causal and tower.sos is not None and plain

    def some(self, classes: Sequence[int]) -> Self:
        other = super().some(classes)
        other._chunked = {}
        return other

    def on_their_own(self) -> Self:
        """The same prompts as a graph can hold them: with the embeddings of their own tokens alone, and all classes in
        one chunk, whatever the number of images. Token ids are places among those embeddings."""
        other = copy.copy(self)
        ids = sorted({token for body in self.body_ids for token in body})
        place = {token: i for i, token in enumerate(ids)}
        other.tower = copy.copy(self.tower)
        other.tower.token_embedding = nn.Embedding.from_pretrained(self.tower.token_embedding.weight[ids])
        other.body_ids = [[place[token] for token in body] for body in self.body_ids]
        other.memory, other._chunked = None, {}
        return other

    @property
    def tokens(self) -> int:
        """How many tokens all classes have together behind the context that they share."""
        return self._tokens(class_specific=False)

    def _parts(self, before: Tensor, after: Tensor, deep: Sequence[Tensor], upper: Sequence[Tensor]) -> Iterator[Part]:
        sos = self._with_upper(upper)
        batch = max(context.shape[0] for context in (before, after, *deep))
        class_specific = any(context.shape[1] > 1 for context in (before, *deep))
        if class_specific:
            shared = sos
        else:
            shared = self._prefix(before[:, 0], [replaced[:, 0] for replaced in deep], parents=sos)
            before, deep = before[:, :, :0], ()

        needs_grad = any(t.requires_grad for t in (before, after, *deep, *upper, *shared[-1]))
        tokens, plain, lean = self._tokens(class_specific), sys.maxsize, sys.maxsize
        if torch.is_grad_enabled() and needs_grad:
            room = self._room(batch, len(self.tower.blocks))  # in widths of a token that all layers keep
            limit = room // SAVED_WIDTHS
            if limit < tokens:
                limit //= PARTS
                room -= room // PARTS
                plain, lean = (room - LEAN_WIDTHS * tokens) // (SAVED_WIDTHS - LEAN_WIDTHS), room // LEAN_WIDTHS
        else:
            limit = self._room(batch, 2 * WORKING_WIDTHS)  # larger chunks are no faster
        done = 0
        for chunk in self._chunks(limit, class_specific):
            done += len(chunk.ids)
            if done <= lean:  # backward goes from last to first, so the first are those to keep
                features = self._encode_chunk(chunk, before, after, deep, shared, lean=done > plain)
            else:
                features = self._encode_chunk_again(chunk, before, after, deep, shared)
            yield chunk.classes, features

    def _prefix(
        self,
        context: Float[Tensor, "batch length width"],
        deep: Sequence[Tensor] = (),
        parents: Sequence[KeysValues] | None = None,
    ) -> Sequence[KeysValues]:
        """Keys and values, layer by layer, of `parents` and of a context that stands behind them, for all classes."""
        length = context.shape[1]
        if length == 0 and parents is not None:
            return parents
        tower = self.tower
        start = 0 if parents is None else self.start
        x = context + tower.positional_embedding[start : start + length]
        layers: list[KeysValues] = []
        for layer, block in enumerate(tower.blocks):
            if 0 < layer <= len(deep):
                x = deep[layer - 1].to(x.dtype)
            q, k, v = _heads(block, x)
            parent = None if parents is None else parents[layer]
            layers.append((k, v) if parent is None else (_behind(parent[0], k), _behind(parent[1], v)))
            if layer + 1 < len(tower.blocks):
                x = _finish(block, x, _attend(q, k, v, *(parent or ()), runs=(Run(0, 1, length),)))
        return layers

    def _with_upper(self, upper: Sequence[Float[Tensor, "tokens width"]]) -> Sequence[KeysValues]:
        """Keys and values, layer by layer, of SOS and of the tokens that stand behind it in the last layers.

        Whatever a layer makes of these tokens is replaced at the next, so they have no queries.
        """
        first = len(self.sos) - len(upper)
        layers = list(self.sos[:first])
        for (key, value), block, tokens in zip(self.sos[first:], self.tower.blocks[first:], upper, strict=True):
            _, k, v = _heads(block, tokens[None])
            layers.append((_behind(key, k), _behind(value, v)))
        return layers

    def _encode_chunk(
        self,
        chunk: Chunk,
        before: Tensor,
        after: Tensor,
        deep: Sequence[Tensor],
        shared: Sequence[KeysValues],
        lean: bool,
    ) -> Float[Tensor, "batch classes embed"]:
        """Features of a chunk's classes; if lean, what lies inside attention and MLPs is not kept for backward."""
        tower = self.tower
        places = tower.positional_embedding[chunk.positions]
        x = (tower.token_embedding(chunk.ids) + places)[None]  # [1, T, d]: one for all images as long as it can be
        x = _placed(x, chunk.before_at, before, chunk, places)
        x = _placed(x, chunk.after_at, after, chunk, places)
        for layer, block in enumerate(tower.blocks):
            if 0 < layer <= len(deep):
                x = _placed(x, chunk.before_at, deep[layer - 1], chunk)
            last = layer + 1 == len(tower.blocks)
            attend = partial(_attended, block, chunk.runs, chunk.eot if last else None)
            attended = _again(attend, x, *shared[layer]) if lean else attend(x, *shared[layer])
            x = _finish(block, x[:, chunk.eot] if last else x, attended, lean)
        return tower.project(x)

    def _encode_chunk_again(
        self, chunk: Chunk, before: Tensor, after: Tensor, deep: Sequence[Tensor], shared: Sequence[KeysValues]
    ) -> Float[Tensor, "batch classes embed"]:
        """The same, all of it computed again in backward."""

        def encode(before: Tensor, after: Tensor, *others: Tensor) -> Tensor:
            shared = list(zip(others[len(deep) :: 2], others[len(deep) + 1 :: 2], strict=True))
            return self._encode_chunk(chunk, before, after, others[: len(deep)], shared, lean=False)

        return _again(encode, before, after, *deep, *chain(*shared))

    def _tokens(self, class_specific: bool) -> int:
        """How many tokens all classes have together."""
        return sum(map(len, self.body_ids)) + (self.before * len(self) if class_specific else 0)

    def _chunks(self, limit: int, class_specific: bool) -> tuple[Chunk, ...]:
        """The classes in chunks of at most `limit` tokens (or one class), shortest names first."""
        key = (limit, class_specific) = (min(limit, self._tokens(class_specific)), class_specific)
        if key not in self._chunked:
            inside = self.before if class_specific else 0
            lengths = [inside + len(body) for body in self.body_ids]
            chunks: list[list[int]] = [[]]
            filled = 0
            for c in sorted(range(len(self)), key=lengths.__getitem__):
                if chunks[-1] and filled + lengths[c] > limit:
                    chunks.append([])
                    filled = 0
                chunks[-1].append(c)
                filled += lengths[c]
            while len(self._chunked) >= LAYOUTS:
                del self._chunked[next(iter(self._chunked))]
            self._chunked[key] = tuple(self._chunk(classes, inside) for classes in chunks)
        return self._chunked[key]

    @torch.inference_mode(False)  # kept for training, which cannot use inference tensors
    def _chunk(self, classes: Sequence[int], inside: int) -> Chunk:
        """The layout of these classes, sorted by length, each with `inside` context tokens of its own in front."""
        ids: list[int] = []
        positions: list[int] = []
        before_at, after_at, eot = [], [], []
        runs: list[Run] = []
        for c in classes:
            start, body = len(ids), [0] * inside + self.body_ids[c]
            ids += body
            positions += range(1 + self.before - inside, 1 + self.before - inside + len(body))
            before_at.append(range(start, start + inside))
            name_end = start + inside + self.after_at[c]
            after_at.append(range(name_end, name_end + self.after))
            eot.append(len(ids) - 1)
            if runs and runs[-1].length == len(body):
                runs[-1] = Run(runs[-1].start, runs[-1].count + 1, len(body))
            else:
                runs.append(Run(start, 1, len(body)))

        def index(values: Sequence[int] | Sequence[range], *shape: int) -> Tensor:
            flat = [i for v in values for i in (v if isinstance(v, range) else (v,))]
            return torch.tensor(flat, dtype=torch.long, device=self.tower.device).view(*shape)

        return Chunk(
            classes=index(classes, -1),
            ids=index(ids, -1),
            positions=index(positions, -1),
            before_at=index(before_at, len(classes), inside),
            after_at=index(after_at, len(classes), self.after),
            eot=index(eot, -1),
            runs=tuple(runs),
        )


def _placed(x: Tensor, at: Tensor, context: Tensor, chunk: Chunk, places: Tensor | None = None) -> Tensor:
    """x [B|1, T, d] with context vectors [B|1, C|1, S, d] of the chunk's classes at their tokens `at` [c, S].

    `places` [T, d] are the positional embeddings to add to them.
    """
    if at.numel() == 0:
        return x
    if context.shape[1] > 1:
        context = context[:, chunk.classes]
    if places is not None:
        context = context + places[at]
    x = x.expand(max(x.shape[0], context.shape[0]), -1, -1).clone()
    x[:, at] = context.to(x.dtype).expand(x.shape[0], *at.shape, -1)
    return x


def _behind(parent: Tensor, own: Tensor) -> Tensor:
    """[B, H, P + n, d/H] of [B|1, H, P, d/H] and [B, H, n, d/H]."""
    return torch.cat([parent.expand(own.shape[0], -1, -1, -1).to(own.dtype), own], dim=2)


def _attended(
    block: ResidualAttentionBlock, runs: Sequence[Run], queries: Tensor | None, x: Tensor, *shared: Tensor
) -> Tensor:
    """What attention makes of tokens x [B|1, T, d], at these of them, or at all: [B, queries, d]."""
    q, k, v = _heads(block, x)
    return _attend(q if queries is None else q[:, :, queries], k, v, *shared, runs=runs)


def _heads(block: ResidualAttentionBlock, x: Float[Tensor, "batch tokens width"]) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of every token, each [B, H, T, d/H]."""
    attention = block.attn
    qkv = F.linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    q, k, v = qkv.unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return q, k, v


def _attend(q: Tensor, k: Tensor, v: Tensor, *shared: Tensor, runs: Sequence[Run]) -> Tensor:
    """Causal attention inside each class, and of every class to what is shared. Returns [B, queries, d].

    There are as many queries as tokens, or one a class, its last.
    """
    q = q * q.shape[-1] ** -0.5
    eot_only = q.shape[2] != k.shape[2]
    batch = max(q.shape[0], shared[0].shape[0] if shared else 1)
    length_shared = shared[0].shape[2] if shared else 0
    tokens = [run.count * run.length for run in runs]
    queries = [run.count for run in runs] if eot_only else tokens
    to_shared = None if not shared else (q @ shared[0].transpose(-1, -2)).split(queries, dim=2)  # each [B, H, q, P]
    own, weights_shared = [], []
    parts = zip(runs, q.split(queries, dim=2), k.split(tokens, dim=2), v.split(tokens, dim=2), strict=True)
    for i, (run, query, key, value) in enumerate(parts):
        rows = 1 if eot_only else run.length
        key, value = (t.unflatten(2, (run.count, run.length)) for t in (key, value))
        scores = query.unflatten(2, (run.count, rows)) @ key.transpose(-1, -2)  # [B, H, C, rows, length]
        if rows > 1:
            scores = scores.masked_fill(_future(rows, q.device), float("-inf"))
        if to_shared is not None:
            scores = torch.cat(
                [to_shared[i].unflatten(2, (run.count, rows)), scores.expand(batch, -1, -1, -1, -1)], dim=-1
            )
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        of_shared, of_own = weights.split([length_shared, run.length], dim=-1)
        own.append((of_own @ value).flatten(2, 3))
        weights_shared.append(of_shared.flatten(2, 3))
    attended = torch.cat(own, dim=2)
    if shared:
        attended = attended + torch.cat(weights_shared, dim=2) @ shared[1]
    return attended.transpose(1, 2).flatten(2)


@cache
@torch.inference_mode(False)
def _future(length: int, device: torch.device) -> Tensor:
    """[length, length], true where a column stands behind a row."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)


def _finish(block: ResidualAttentionBlock, x: Tensor, attended: Tensor, lean: bool = False) -> Tensor:
    """What a block does after attention; if lean, the MLP's hidden layer is not kept for backward."""
    x = x + block.ls_1(block.attn.out_proj(attended))
    *inner, last = block.mlp  # `last` is frozen and does not keep its input, the widest of all

    def hidden(x: Tensor) -> Tensor:
        x = block.ln_2(x)
        for layer in inner:
            x = layer(x)
        return x

    return x + block.ls_2(last(_again(hidden, x) if lean else hidden(x)))


def _again(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """What the function makes of the tensors, computed again in backward, for their gradients alone."""
    return _Again.apply(function, *tensors)


class _Again(torch.autograd.Function):
    """As torch's checkpoint, but forward leaves no graph: each of its many small nodes would stand in the room that
    a tensor beside it gave back, so that the next such tensor finds none; at 500 classes 3 GiB were lost to the gaps.
    Torch's reentrant form leaves none either, but refuses `torch.autograd.grad`.
    """

    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
        kind = tensors[0].device.type
        ctx.function = function
        ctx.autocast = {"device_type": kind, "dtype": torch.get_autocast_dtype(kind)}
        ctx.autocast["enabled"] = torch.is_autocast_enabled(kind)
        ctx.save_for_backward(*tensors)
        return function(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        needed = ctx.needs_input_grad[1:]
        tensors = [t.detach().requires_grad_(n) for t, n in zip(ctx.saved_tensors, needed, strict=True)]
        with torch.enable_grad(), torch.autocast(**ctx.autocast):
            result = ctx.function(*tensors)
        torch.autograd.backward(result, gradient)
        return None, *(t.grad for t in tensors)
