"""The learning-rate schedules."""

import pytest

from gopro.methods.recipe import Recipe
from gopro.training.lr_schedule import learning_rate


def test_a_schedule_by_epochs_starts_its_cosine_after_the_warm_up() -> None:
    recipe = Recipe(lr=0.1, epochs=5, warmup=1)
    rates = [learning_rate(recipe, epoch) for epoch in range(5)]
    assert rates == pytest.approx([1e-5, 0.1, 0.0904508, 0.0654508, 0.0345492], rel=1e-5)
    assert all(learning_rate(recipe, epoch + 0.9) == rate for epoch, rate in enumerate(rates))


def test_a_schedule_by_epochs_may_have_no_warm_up() -> None:
    assert learning_rate(Recipe(lr=0.1, epochs=1, warmup=0), 0) == 0.1


def test_a_schedule_by_steps_warms_up_and_falls_to_zero() -> None:
    recipe = Recipe(lr=0.1, epochs=10, warmup=1, schedule="step")
    assert learning_rate(recipe, 0.5) == 1e-5
    assert learning_rate(recipe, 5) == pytest.approx(0.05)
    assert learning_rate(recipe, 9.99) < 1e-4
    rates = [learning_rate(recipe, 1 + i / 10) for i in range(90)]
    assert rates == sorted(rates, reverse=True)
