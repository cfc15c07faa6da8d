"""The learning-rate schedule: a constant warm-up, then a cosine down to 0."""

from __future__ import annotations

import math

from gopro.methods.recipe import Recipe

WARMUP_LR = 1e-5
"""Dassl's `WARMUP_CONS_LR` in every recipe of the CoOp family."""


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at a fractional epoch: constant during the warm-up, then a cosine down to 0.

    This is CoOp's schedule (Dassl's constant warm-up, then torch's CosineAnnealingLR), evaluated at every step rather
    than once per epoch.

    Example:
        >>> recipe = Recipe(lr=0.1, epochs=10, warmup=1)
        >>> learning_rate(recipe, 0.5), learning_rate(recipe, 5)
        (1e-05, 0.05)
    """
    if epoch < recipe.warmup:
        return min(WARMUP_LR, recipe.lr)
    return recipe.lr * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
