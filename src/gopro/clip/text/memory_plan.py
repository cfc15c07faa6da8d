"""The memory plan: the classes to encode at once and the activations to keep for backward, within a budget.

The unit of the arithmetic is one vector of the tower's width (fp32) per token, for every image of the batch and every
layer: 4 · width · images · layers bytes. For one token of a class, autograd keeps

    mode             units  kept
    KEEP_ALL            11  inputs of the norms; queries, keys, values and copies of them; the MLP's hidden layer
    RECOMPUTE_INNER      2  the inputs of attention and of the MLP; backward recomputes what lies inside them, 0.6 of a
                            forward pass
    RECOMPUTE_ALL        0  nothing; backward recomputes the whole forward pass

Let the budget be U units and the classes have T tokens together.

- If 11 T ≤ U, everything is kept and all classes are encoded at once.
- Otherwise classes are encoded in chunks. The chunk being encoded, or recomputed in backward, holds up to 11 units
  per token, and may take U / 8: a chunk has at most U / 8 / 11 tokens. The other R = 7 U / 8 hold what is kept.
  RECOMPUTE_INNER fits R / 2 tokens. If these are all T, then R - 2 T is left, and lifting a token from RECOMPUTE_INNER
  to KEEP_ALL costs 11 - 2 = 9 units, so (R - 2 T) / 9 tokens keep everything.

Example: ViT-B/16 (width 512, 12 layers), 4 images in 3 views: a unit is 4 · 512 · 12 · 12 = 294,912 bytes, and 2 GiB
are U = 7,281 units. 500 classes have T = 2,494 tokens, which would need 27,434. Chunks have 82 tokens; R = 6,371;
RECOMPUTE_INNER fits 3,185, hence all; (6,371 - 4,988) / 9 = 153 tokens keep everything.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from enum import Enum
from typing import Self

KEPT_UNITS = 11
"""Units per token under KEEP_ALL; at most 10 were measured."""
KEPT_UNITS_INNER = 2
WORKING_VECTORS = 21
"""Vectors of the tower's width that a token takes while one layer is computed and nothing is kept: 17 were measured
with GELU, 21 with QuickGELU."""
CHUNK_SHARE = 8
"""The chunk being worked on gets 1 / CHUNK_SHARE of the budget."""


class Keep(Enum):
    """The activations of a chunk of classes that autograd keeps for backward."""

    KEEP_ALL = "every activation"
    RECOMPUTE_INNER = "the inputs of attention and MLPs"
    RECOMPUTE_ALL = "nothing"


@dataclass(frozen=True)
class MemoryPlan:
    """A division of all classes' tokens into chunks and modes; see the module for the arithmetic.

    Attributes:
        chunk_tokens: the most tokens of a chunk (a single class may have more).
        keep_all: the number of tokens, from the first, that are encoded under KEEP_ALL.
        keep_inputs: the number of tokens, from the first, after which the mode changes from RECOMPUTE_INNER to
            RECOMPUTE_ALL.
    """

    chunk_tokens: int
    keep_all: int = sys.maxsize
    keep_inputs: int = sys.maxsize

    @classmethod
    def for_budget(cls, budget: int | None, tokens: int, vector_bytes: int, layers: int, training: bool) -> Self:
        """Plan for a budget in bytes, None for no limit.

        Args:
            tokens: the tokens of all classes.
            vector_bytes: 4 · width · images.
            training: whether activations are kept for backward.

        Example:
            >>> MemoryPlan.for_budget(2 << 30, tokens=2494, vector_bytes=4 * 512 * 12, layers=12, training=True)
            MemoryPlan(chunk_tokens=82, keep_all=153, keep_inputs=3185)
        """
        if budget is None:
            return cls(sys.maxsize)
        if not training:  # half of the budget: larger chunks are no faster
            return cls(budget // (vector_bytes * 2 * WORKING_VECTORS))
        units = budget // (vector_bytes * layers)
        if KEPT_UNITS * tokens <= units:
            return cls(units // KEPT_UNITS)
        rest = units - units // CHUNK_SHARE
        return cls(
            chunk_tokens=units // KEPT_UNITS // CHUNK_SHARE,
            keep_all=max(0, (rest - KEPT_UNITS_INNER * tokens) // (KEPT_UNITS - KEPT_UNITS_INNER)),
            keep_inputs=rest // KEPT_UNITS_INNER,
        )

    def mode(self, tokens: int) -> Keep:
        """Return the mode of the chunk that ends at token number `tokens` of all."""
        if tokens <= self.keep_all:
            return Keep.KEEP_ALL
        return Keep.RECOMPUTE_INNER if tokens <= self.keep_inputs else Keep.RECOMPUTE_ALL
