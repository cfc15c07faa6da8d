"""Causal attention over packed classes: each class attends to its own tokens and to a prefix that all share.

Shapes: B images (or 1), T tokens of a chunk, C classes of a group, P tokens of the shared prefix, H heads, d width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from gopro.clip.faster_layers.frozen_block import attention_inputs
from gopro.clip.open_clip_internals import ResidualAttentionBlock
from gopro.clip.text.packed_layout import LengthGroup

KeysValues = tuple[Tensor, Tensor]
"""A layer's keys and values, each [B, H, P, d/H]."""


def append_keys_values(prefix: KeysValues | None, qkv: Tensor) -> KeysValues:
    """Append the keys and values of n tokens [B, n, 3, H, d/H] to those of a prefix [B or 1, H, P, d/H]."""
    _, keys, values = qkv.permute(2, 0, 3, 1, 4)
    if prefix is None:
        return keys, values

    def join(first: Tensor, second: Tensor) -> Tensor:
        return torch.cat([first.expand(second.shape[0], -1, -1, -1).to(second.dtype), second], dim=2)

    return join(prefix[0], keys), join(prefix[1], values)


def attend_in_block(
    block: ResidualAttentionBlock, groups: Sequence[LengthGroup], eot_only: bool, x: Tensor, *prefix: Tensor
) -> Tensor:
    """Return the attention of a block's input x [B or 1, T, d], as `attend` does."""
    return attend(attention_inputs(block, x), *prefix, groups=groups, eot_only=eot_only)


def attend(qkv: Tensor, *prefix: Tensor, groups: Sequence[LengthGroup], eot_only: bool = False) -> Tensor:
    """Return causal attention within each class, and from each class to the prefix: [B, T or C, d].

    Args:
        qkv: queries, keys and values [B or 1, T, 3, H, d/H].
        prefix: keys and values, each [B or 1, H, P, d/H], or nothing.
        eot_only: attend from the last token of each class alone.

    A group is copied once, into the order in which its products read it, and its gradients are joined once.
    """
    scale = qkv.shape[-1] ** -0.5
    if prefix:
        keys, values = prefix[0].mT * scale, prefix[1]
    outputs = []
    for group, tokens in zip(groups, qkv.split([group.count * group.length for group in groups], dim=1), strict=True):
        classes = tokens.unflatten(1, (group.count, group.length))
        q, k, v = classes.permute(3, 0, 4, 1, 2, 5).contiguous()  # [B, H, C, length, d/H]
        if eot_only:
            q = q[..., -1:, :]
        scores = q @ k.mT
        scores = (
            scores * scale
            if eot_only
            else torch.add(_causal_mask(group.length, scores.device, scores.dtype), scores, alpha=scale)
        )
        rows = q.flatten(2, 3)
        if prefix:
            to_prefix = (rows @ keys).unflatten(2, q.shape[2:4])
            batch = to_prefix.shape[0]
            scores = torch.cat([to_prefix, scores.expand(batch, -1, -1, -1, -1)], dim=-1)
        weights = scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype)
        attended = (weights[..., -group.length :] @ v).flatten(2, 3)
        if prefix:
            attended = attended + weights[..., : -group.length].flatten(2, 3) @ values
        outputs.append(attended.transpose(1, 2))
    return torch.cat(outputs, dim=1).flatten(2)


@cache
@torch.inference_mode(False)  # shared with training, which cannot use inference tensors
def _causal_mask(length: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return [length, length], -inf where a key stands after a query, else 0."""
    return torch.full((length, length), float("-inf"), device=device, dtype=dtype).triu(1)
