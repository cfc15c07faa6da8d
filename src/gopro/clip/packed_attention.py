"""Causal attention over packed classes: each class attends to its own tokens and to a prefix that all share.

Shapes: B images (or 1), T tokens of a chunk, C classes of a group, P tokens of the shared prefix, H heads, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from gopro.clip.open_clip_internals import ResidualAttentionBlock, queries_keys_values
from gopro.clip.packed_layout import LengthGroup

KeysValues = tuple[Tensor, Tensor]
"""A layer's keys and values, each [B, H, P, d/H]."""


def append_keys_values(prefix: KeysValues | None, keys: Tensor, values: Tensor) -> KeysValues:
    """Append keys and values [B, H, n, d/H] to those of a prefix [B or 1, H, P, d/H]."""
    if prefix is None:
        return keys, values

    def join(first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first.expand(second.shape[0], -1, -1, -1).to(second.dtype), second], dim=2)

    return join(prefix[0], keys), join(prefix[1], values)


def attend_in_block(
    block: ResidualAttentionBlock,
    groups: Sequence[LengthGroup],
    queries: Tensor | None,
    x: Tensor,
    *prefix: Tensor,
) -> Tensor:
    """Return the attention of a block's input x [B or 1, T, d] at the tokens `queries`, or at all: [B, queries, d]."""
    q, k, v = queries_keys_values(block, x)
    return attend(q if queries is None else q[:, :, queries], k, v, *prefix, groups=groups)


def attend(q: Tensor, k: Tensor, v: Tensor, *prefix: Tensor, groups: Sequence[LengthGroup]) -> Tensor:
    """Return causal attention within each class, and from each class to the prefix: [B, queries, d].

    Args:
        q: [B or 1, H, queries, d/H]: a query for every token, or one per class, its last.
        k, v: [B or 1, H, T, d/H].
        prefix: keys and values, each [B or 1, H, P, d/H], or nothing.

    The products with the prefix are computed for all groups at once, as they do not depend on where a class begins.
    """
    q = q * q.shape[-1] ** -0.5
    eot_only = q.shape[2] != k.shape[2]
    batch = max(q.shape[0], prefix[0].shape[0] if prefix else 1)
    prefix_length = prefix[0].shape[2] if prefix else 0
    tokens = [group.count * group.length for group in groups]
    queries = [group.count for group in groups] if eot_only else tokens
    prefix_scores = None if not prefix else (q @ prefix[0].transpose(-1, -2)).split(queries, dim=2)  # [B, H, q, P]
    outputs, prefix_weights = [], []
    split = zip(groups, q.split(queries, dim=2), k.split(tokens, dim=2), v.split(tokens, dim=2), strict=True)
    for i, (group, query, key, value) in enumerate(split):
        rows = 1 if eot_only else group.length
        key, value = (t.unflatten(2, (group.count, group.length)) for t in (key, value))
        scores = query.unflatten(2, (group.count, rows)) @ key.transpose(-1, -2)  # [B, H, C, rows, length]
        if rows > 1:
            scores = scores.masked_fill(_causal_mask(rows, q.device), float("-inf"))
        if prefix_scores is not None:
            to_prefix = prefix_scores[i].unflatten(2, (group.count, rows))
            scores = torch.cat([to_prefix, scores.expand(batch, -1, -1, -1, -1)], dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        weights_prefix, weights_own = weights.split([prefix_length, group.length], dim=-1)
        outputs.append((weights_own @ value).flatten(2, 3))
        prefix_weights.append(weights_prefix.flatten(2, 3))
    attended = torch.cat(outputs, dim=2)
    if prefix:
        attended = attended + torch.cat(prefix_weights, dim=2) @ prefix[1]
    return attended.transpose(1, 2).flatten(2)


@cache
@torch.inference_mode(False)  # shared with training, which cannot use inference tensors
def _causal_mask(length: int, device: torch.device) -> Tensor:
    """Return [length, length], true where a key stands after a query."""
    return torch.ones(length, length, dtype=torch.bool, device=device).triu(1)
