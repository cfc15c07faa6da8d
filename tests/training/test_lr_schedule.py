"""The learning-rate schedule."""

import pytest

from gopro.methods.recipe import Recipe
from gopro.training.lr_schedule import learning_rate


def test_learning_rate_warms_up_and_falls_to_zero() -> None:
    recipe = Recipe(lr=0.1, epochs=10, warmup=1)
    assert learning_rate(recipe, 0.5) == 1e-5
    assert learning_rate(recipe, 5) == pytest.approx(0.05)
    assert learning_rate(recipe, 9.99) < 1e-4
    rates = [learning_rate(recipe, 1 + i / 10) for i in range(90)]
    assert rates == sorted(rates, reverse=True)
