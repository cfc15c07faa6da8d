"""The layout of a chunk of classes whose tokens are laid end to end, without padding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LengthGroup:
    """`count` neighbouring classes of `length` tokens each.

    Attention works on a group at a time, as one [count, length] block.
    """

    count: int
    length: int


@dataclass(frozen=True)
class Chunk:
    """Classes that are encoded together; T is the number of their tokens, C that of the classes.

    Attributes:
        classes: [C], indices into the class list.
        ids: [T], token ids.
        positions: [T], the tokens' positions in their prompts.
        before_at: [C, before], the tokens that hold a class's own context before the name; [C, 0] if all share one.
        after_at: [C, after], the tokens that hold the context after the name.
        eot: [C], the token that is read.
        groups: the classes by length; the tokens of each group follow those of the one before.
    """

    classes: Tensor
    ids: Tensor
    positions: Tensor
    before_at: Tensor
    after_at: Tensor
    eot: Tensor
    groups: tuple[LengthGroup, ...]


def split_by_tokens(lengths: Sequence[int], limit: int) -> Iterator[list[int]]:
    """Split classes of these lengths into chunks of at most `limit` tokens (or one class), shortest classes first.

    Example:
        >>> list(split_by_tokens([3, 9, 2, 4], 7))
        [[2, 0], [3], [1]]
    """
    chunk: list[int] = []
    tokens = 0
    for c in sorted(range(len(lengths)), key=lengths.__getitem__):
        if chunk and tokens + lengths[c] > limit:
            yield chunk
            chunk, tokens = [], 0
        chunk.append(c)
        tokens += lengths[c]
    yield chunk


@torch.inference_mode(False)  # layouts are reused by training, which cannot use inference tensors
def lay_out(
    classes: Sequence[int],
    bodies: Sequence[Sequence[int]],
    name_lengths: Sequence[int],
    context: tuple[int, int, int],
    device: torch.device,
) -> Chunk:
    """Lay out classes that are sorted by length.

    Args:
        classes: indices into `bodies` (token ids after the context) and `name_lengths`.
        context: the length of the context before the name; how much of it each class has to itself, all or nothing; the
            length of the context after the name.
    """
    before, own, after = context
    ids: list[int] = []
    positions: list[int] = []
    before_at, after_at, eot = [], [], []
    groups: list[LengthGroup] = []
    for c in classes:
        start, tokens = len(ids), [0] * own + list(bodies[c])
        first_position = 1 + before - own  # SOS is at position 0
        ids += tokens
        positions += range(first_position, first_position + len(tokens))
        name_end = start + own + name_lengths[c]
        before_at.append(list(range(start, start + own)))
        after_at.append(list(range(name_end, name_end + after)))
        eot.append(len(ids) - 1)
        if groups and groups[-1].length == len(tokens):
            groups[-1] = LengthGroup(groups[-1].count + 1, len(tokens))
        else:
            groups.append(LengthGroup(1, len(tokens)))

    def index(values: Sequence[int] | Sequence[list[int]], *shape: int) -> Tensor:
        return torch.tensor(values, dtype=torch.long, device=device).view(*shape)

    return Chunk(
        classes=index(classes, -1),
        ids=index(ids, -1),
        positions=index(positions, -1),
        before_at=index(before_at, len(classes), own),
        after_at=index(after_at, len(classes), after),
        eot=index(eot, -1),
        groups=tuple(groups),
    )
