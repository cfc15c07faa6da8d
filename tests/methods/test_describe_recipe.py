"""Recipes in words say what a training gets."""

import re

import pytest

from gopro.data.published.catalog import CATALOG
from gopro.methods.describe_recipe import RecipeLine, dassl_in_words, describe_recipe
from gopro.methods.recipe import Conditions, Recipe, Task, Training
from gopro.methods.registry import METHODS, parse_method

TASKS: tuple[Task, ...] = ("base-to-new", "transfer", "few-shot")
TRAINED = [name for name, kind in METHODS.items() if kind.trained_by]


def holds(line: RecipeLine, data: str, shots: int) -> bool:
    """Read from its words whether a line holds for a training."""
    *names, last = line.where.split(", ")
    counts = re.findall(r"\d+(?= or|, | shots?$)", line.where) if last.endswith(("shot", "shots")) else []
    names = [name for name in [*names, last] if name and name in CATALOG]
    return (not names or data in names) and (not counts or str(shots) in counts)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("method", TRAINED)
def test_the_lines_that_hold_for_a_training_add_up_to_its_recipe(method: str, task: Task) -> None:
    spec = parse_method(method)
    lines = describe_recipe(spec, task)
    for data in (*CATALOG, "my-images"):
        for shots in (1, 2, 4, 16):
            trained, recipe = spec.for_training(Conditions(task, data, shots))
            fitting = [line for line in lines if holds(line, data, shots)]
            settings = dict(
                pair.split("=", 1) for line in fitting for pair in re.split(r", (?=\w+=)", line.settings) if pair
            )
            for name, text in settings.items():
                value = getattr(trained.config, name)
                shown = "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
                assert text == shown, (data, shots, name)
            words = ", ".join(line.recipe for line in fitting)
            if Training.STEPS in METHODS[method].trained_by:
                assert re.findall(r"(?:^|, )(\d+) epochs?", words)[-1] == str(recipe.epochs), (data, shots)
                assert re.findall(r"batches of (\d+)", words)[-1] == str(recipe.batch), (data, shots)
                assert recipe.in_words().rpartition(", ")[2] in words  # optimiser and learning rate
                assert ("no warm-up" in words) == (recipe.warmup == 0)
                assert ("cosine per step" in words) == (recipe.schedule == "step")
            else:
                assert "epoch" not in words
            assert ("crops from 0.5" in words) == (recipe.crop == 0.5)


@pytest.mark.parametrize("method", [name for name in TRAINED if METHODS[name].repository])
def test_a_task_without_a_file_of_the_authors_has_the_recipe_of_their_first_task(method: str) -> None:
    spec = parse_method(method)
    repository = METHODS[method].repository
    assert repository
    first, *_ = repository.files
    for task in TASKS:
        described, theirs = describe_recipe(spec, task)[0], describe_recipe(spec, first)[0]
        if task not in repository.files:
            assert (described.recipe, described.settings, described.files) == (theirs.recipe, theirs.settings, ())
        else:
            assert all(line.files for line in describe_recipe(spec, task))


def test_settings_of_the_user_are_left_out() -> None:
    assert "depth=3" in describe_recipe(parse_method("maple"), "transfer")[0].settings
    assert "depth" not in describe_recipe(parse_method("maple[depth=4]"), "transfer")[0].settings


def test_what_no_line_says_is_dassls() -> None:
    recipe = Recipe()
    assert f"momentum {recipe.momentum:g}, weight decay {recipe.weight_decay:g}" in dassl_in_words()
    assert "incomplete batches left out, crops from 0.08" in dassl_in_words()
