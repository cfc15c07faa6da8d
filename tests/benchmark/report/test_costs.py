"""The cost of each method, and how it was trained."""

from dataclasses import asdict
from typing import Any

import pytest

from gopro.benchmark.report.experiment import comparisons
from gopro.benchmark.report.plots.accuracy import method_costs
from gopro.methods.recipe import Recipe
from tests.support.fake_sweep import result_row

RECIPE = asdict(Recipe(epochs=5))


@pytest.mark.parametrize(
    ("recipes", "words"),
    [
        ([RECIPE, RECIPE], "5 epochs, batches of 4, SGD at 0.002"),
        ([RECIPE, RECIPE | {"epochs": 6}], None),
        ([RECIPE, RECIPE | {"unknown": 1}], None),  # results of another version
        ([RECIPE | {"crop": None}], None),
        ([None], None),
    ],
)
def test_a_recipe_is_named_if_all_runs_share_it(recipes: list[Any], words: str | None) -> None:
    rows = [
        result_row("dtd", "coop", half, 60.0, seed=seed, run=seed, train_seconds=1.0, made_with={"recipe": recipe})
        for seed, recipe in enumerate(recipes)
        for half in ("base", "new")
    ]
    [comparison] = comparisons(rows)
    _, [cost] = method_costs(comparison)
    assert cost.training == words
