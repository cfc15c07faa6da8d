"""The learning-rate schedule: a constant warm-up, then a cosine."""

from __future__ import annotations

import math

from gopro.methods.recipe import Recipe

WARMUP_LR = 1e-5
"""Dassl's `WARMUP_CONS_LR` in every recipe of the CoOp family."""


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at a fractional epoch, counted from 0.

    With the schedule `epoch` it is that of Dassl (KaiyangZhou/Dassl.pytorch, `dassl/optim/lr_scheduler.py`, with
    `WARMUP_RECOUNT`): the warm-up epochs run at 1e-5; the cosine over all T epochs starts *after* them and is stepped
    once an epoch. With one epoch of warm-up, epoch e runs at lr · (1 + cos(π (e - 1) / T)) / 2: epoch 1 at the full
    rate, and the last one well above 0.

    With the schedule `step` the cosine starts with the training, the warm-up cuts off its beginning, and every step has
    a rate of its own, down to 0.

    Example:
        >>> recipe = Recipe(lr=0.1, epochs=4, warmup=1)
        >>> [round(learning_rate(recipe, epoch), 5) for epoch in range(4)]
        [1e-05, 0.1, 0.08536, 0.05]
        >>> learning_rate(Recipe(lr=0.1, epochs=10, warmup=1, schedule="step"), 5)
        0.05
    """
    if recipe.schedule == "epoch":
        epoch = math.floor(epoch)
    if epoch < recipe.warmup:
        return min(WARMUP_LR, recipe.lr)
    if recipe.schedule == "epoch":
        epoch -= math.ceil(recipe.warmup)
    return recipe.lr * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2
