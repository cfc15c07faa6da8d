"""The learning-rate schedules."""

import pytest

from gopro.methods.recipe import Conditions, Recipe, Training
from gopro.methods.registry import METHODS, parse_method
from gopro.training.lr_schedule import learning_rate
from tests.support.authors import RECORDED, TRAININGS


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


def authors_recipes() -> list[tuple[str, Recipe]]:
    """Return the recipes of all methods and trainings whose learning rate changes once an epoch."""
    found = {
        (name, recipe.lr, recipe.epochs, recipe.warmup): (name, recipe)
        for name in METHODS
        for _, recipe in (parse_method(name).for_training(training) for training in TRAININGS)
        if Training.STEPS in METHODS[name].trained_by and recipe.schedule == "epoch"
    }
    return list(found.values())


@pytest.mark.parametrize(("method", "recipe"), authors_recipes())
def test_each_epoch_has_the_learning_rate_of_dassls_schedule(method: str, recipe: Recipe) -> None:
    key = {"lr": recipe.lr, "epochs": recipe.epochs, "warmup": recipe.warmup}
    (recorded,) = (schedule for schedule in RECORDED["schedules"] if schedule.items() >= key.items())
    rates = [learning_rate(recipe, epoch + 0.5) for epoch in range(recipe.epochs)]
    assert rates == pytest.approx(recorded["rates"], rel=1e-9, abs=0)


def test_the_methods_of_the_coop_family_have_dassls_schedule() -> None:
    found = {name for name, _ in authors_recipes()}
    assert found == {"coop", "cocoop", "kgcoop", "maple", "promptsrc", "mmrl", "gopro-release", "gopro-paper"}
    assert len(authors_recipes()) >= 13


def test_tip_adapter_f_has_the_authors_learning_rate_at_each_step() -> None:
    recorded = RECORDED["steps"]
    _, recipe = parse_method("tip-adapter-f").for_training(Conditions("few-shot", "dtd", 16))
    assert (recipe.lr, recipe.epochs) == (recorded["lr"], recorded["epochs"])
    steps = [step / recorded["batches"] for step in range(recorded["epochs"] * recorded["batches"])]
    assert [learning_rate(recipe, step) for step in steps] == pytest.approx(recorded["rates"], rel=1e-9, abs=0)
