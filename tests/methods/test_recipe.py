"""The authors' recipes: which one a training gets, and what a user's settings change of it."""

import inspect
import re
from pathlib import Path

import pytest

from gopro.data.published.catalog import CATALOG
from gopro.methods.recipe import Conditions, Recipe, Repository, Task, Training, Variant, vary
from gopro.methods.registry import METHODS, parse_method
from gopro.runs.config import TrainConfig

B2N, TRANSFER, FEW = "base-to-new", "transfer", "few-shot"


@pytest.mark.parametrize(
    ("method", "conditions", "recipe", "settings"),
    [
        ("coop", (B2N, "dtd", 16), {"epochs": 200, "batch": 32, "lr": 2e-3}, {"tokens": None}),
        ("coop", (B2N, "imagenet", 16), {"epochs": 50}, {"tokens": None}),
        ("coop", (TRANSFER, "imagenet", 16), {"epochs": 50}, {"tokens": None}),
        ("coop", (FEW, "dtd", 1), {"epochs": 50}, {"tokens": 16}),
        ("coop", (FEW, "dtd", 4), {"epochs": 100}, {"tokens": 16}),
        ("coop", (FEW, "dtd", 8), {"epochs": 200}, {"tokens": 16}),
        ("coop", (FEW, "imagenet", 16), {"epochs": 50}, {"tokens": 16}),
        ("cocoop", (TRANSFER, "imagenet", 16), {"epochs": 10, "batch": 1}, {}),
        ("kgcoop", (B2N, "dtd", 16), {"epochs": 100, "batch": 128, "drop_last": True}, {"weight": 8.0}),
        ("kgcoop", (TRANSFER, "dtd", 4), {"epochs": 100}, {"template": "a photo of a {}, a type of texture."}),
        ("kgcoop", (B2N, "eurosat", 16), {"epochs": 100}, {"template": None}),
        ("maple", (B2N, "dtd", 16), {"epochs": 5, "lr": 3.5e-3, "batch": 4}, {"depth": 9}),
        ("maple", (TRANSFER, "imagenet", 16), {"epochs": 2, "lr": 2.6e-3}, {"depth": 3}),
        ("promptsrc", (B2N, "dtd", 16), {"epochs": 20, "lr": 2.5e-3}, {"depth": 9, "gpa_mean": 15.0, "gpa_std": 1.0}),
        ("promptsrc", (TRANSFER, "imagenet", 16), {"epochs": 20}, {"depth": 3, "gpa_mean": 6.0, "gpa_std": 10.0}),
        ("promptsrc", (FEW, "food101", 16), {"epochs": 50}, {"depth": 9, "gpa_mean": 30.0, "gpa_std": 30.0}),
        ("promptsrc", (FEW, "eurosat", 2), {"epochs": 50}, {"gpa_mean": 45.0, "gpa_std": 5.0}),
        ("mmrl", (B2N, "dtd", 16), {"epochs": 10, "batch": 4, "optimizer": "adamw"}, {"reg": 6.0, "dim": 512}),
        ("mmrl", (B2N, "eurosat", 16), {"epochs": 10, "crop": 0.5}, {"reg": 0.01, "dim": 2048}),
        ("mmrl", (B2N, "my-images", 16), {"epochs": 10}, {"reg": 1.0, "dim": 512}),
        ("mmrl", (B2N, "imagenet", 16), {"epochs": 5, "batch": 32}, {"reg": 0.5}),
        ("mmrl", (FEW, "my-images", 4), {"epochs": 50, "batch": 32, "warmup": 1.0}, {"reg": 0.5}),
        ("mmrl", (FEW, "stanford_cars", 4), {"epochs": 50, "batch": 32}, {"reg": 7.0}),
        ("mmrl", (TRANSFER, "imagenet", 16), {"epochs": 1, "batch": 32, "warmup": 0.0}, {"reg": 0.2, "dim": 512}),
        ("gopro-paper", (B2N, "dtd", 16), {"epochs": 50, "batch": 4, "lr": 2e-3, "schedule": "epoch"}, {"sem": 1.0}),
        ("gopro-release", (B2N, "dtd", 16), {"epochs": 50, "batch": 4, "lr": 2e-3, "schedule": "epoch"}, {}),
        (
            "tip-adapter-f",
            (FEW, "my-images", 16),
            {"epochs": 20, "schedule": "step", "drop_last": False},
            {"alpha": 1.0},
        ),
        (
            "tip-adapter-f",
            (FEW, "eurosat", 16),
            {"epochs": 100, "eps": 1e-4},
            {"alpha": 2.0, "beta": 1.0, "max_beta": 12.0},
        ),
        ("tip-adapter", (FEW, "imagenet", 16), {"crop": 0.5}, {"alpha": 1.17, "max_alpha": 3.0, "ensemble": 7}),
    ],
)
def test_a_training_gets_the_authors_recipe(
    method: str, conditions: tuple[Task, str, int], recipe: dict[str, object], settings: dict[str, object]
) -> None:
    spec, resolved = parse_method(method).for_training(Conditions(*conditions))
    assert {name: getattr(resolved, name) for name in recipe} == recipe
    assert {name: getattr(spec.config, name) for name in settings} == settings


def test_settings_of_the_user_go_over_the_authors() -> None:
    spec, _ = parse_method("maple[depth=5]").for_training(Conditions("transfer", "imagenet", 16))
    assert spec.config.depth == 5
    spec, _ = parse_method("coop[tokens=null]").for_training(Conditions("few-shot", "dtd", 16))
    assert spec.config.tokens is None


def test_later_variants_go_over_earlier_ones_and_all_conditions_must_hold() -> None:
    variants = [
        Variant(source="a", recipe={"epochs": 10}, settings={"x": 1, "y": 1}, tasks=("few-shot",)),
        Variant(source="b", recipe={"epochs": 20}, settings={"x": 2}, tasks=("few-shot",), data=("dtd",), shots=(4,)),
    ]
    assert vary(Recipe(epochs=5), variants, Conditions("few-shot", "dtd", 4)) == (Recipe(epochs=20), {"x": 2, "y": 1})
    for other in (Conditions("few-shot", "dtd", 8), Conditions("few-shot", "sun397", 4)):
        assert vary(Recipe(epochs=5), variants, other) == (Recipe(epochs=10), {"x": 1, "y": 1})
    assert vary(Recipe(epochs=5), variants, Conditions("transfer", "dtd", 4)) == (Recipe(epochs=5), {})


def test_every_variant_names_its_source_and_changes_what_exists() -> None:
    for kind in METHODS.values():
        assert not kind.variants or kind.trained_by is not Training.NONE
        assert not kind.variants or kind.repository
        for variant in kind.variants:
            assert variant.source and (variant.recipe or variant.settings)
            Recipe(**variant.recipe)
            type(kind.config)(**variant.settings)


def test_sources_are_files_at_a_commit_of_the_authors_repository() -> None:
    """The docstring of a method names the same repository; names of files have no space, so each names one."""
    repositories = {name: kind.repository for name, kind in METHODS.items() if kind.repository}
    assert {"coop", "cocoop", "kgcoop", "maple", "promptsrc", "mmrl", "tip-adapter-f"} < set(repositories)
    for name, repository in repositories.items():
        assert f"repository {repository.name}" in " ".join((METHODS[name].__doc__ or "").split())
        files = [*repository.files.values(), *(variant.source for variant in METHODS[name].variants)]
        assert all(re.fullmatch(r"[\w./+-]+\.(py|sh|md|yaml)", file) for file in files), files
        assert re.fullmatch(r"[0-9a-f]{40}", repository.commit)
    url = Repository(name="a/b", commit="c", files={}).url("configs/4+4.yaml")
    assert url == "https://github.com/a/b/blob/c/configs/4%2B4.yaml"


@pytest.mark.parametrize(
    ("settings", "task"),
    [
        ({}, "few-shot"),
        ({"classes": "base"}, "base-to-new"),
        ({"data": "imagenet"}, "transfer"),
        ({"data": "imagenet", "classes": "base"}, "base-to-new"),
        ({"task": "transfer"}, "transfer"),
    ],
)
def test_the_task_follows_from_the_classes_unless_it_is_given(settings: dict[str, str], task: str) -> None:
    config = TrainConfig(**{"data": "dtd", "output": Path(), **settings})
    assert config.conditions.task == task


def test_flags_go_over_the_recipe_and_a_data_sets_crop_over_the_authors() -> None:
    config = TrainConfig(data="dtd", output=Path(), epochs=2, lr=0.5)
    recipe = config.recipe(Recipe(epochs=50, batch=32, crop=0.5), dataset_crop=0.3)
    assert (recipe.epochs, recipe.lr, recipe.batch, recipe.crop, recipe.warmup) == (2, 0.5, 32, 0.3, 1)
    assert TrainConfig(data="dtd", output=Path(), crop=0.2).recipe(recipe, dataset_crop=0.3).crop == 0.2
    assert TrainConfig(data="dtd", output=Path(), epochs=1).recipe(recipe).warmup == 0  # one epoch is not all warm-up


def test_the_brackets_of_a_method_go_over_flags_and_data_sets() -> None:
    config = TrainConfig(data="dtd", output=Path(), epochs=5, lr=0.5, crop=0.2, weight_decay=0.1)
    chosen = parse_method("coop[lr=0.01,epochs=1,crop=0.9]").recipe_settings
    recipe = config.recipe(Recipe(), 0.3, chosen)
    assert (recipe.lr, recipe.epochs, recipe.crop, recipe.weight_decay, recipe.warmup) == (0.01, 1, 0.9, 0.1, 0)
    assert config.recipe(Recipe(), 0.3, {"epochs": 1, "warmup": 1}).warmup == 1


def test_kgcoops_reference_prompts_are_the_data_sets_own_but_for_textures() -> None:
    """`CUSTOM_TEMPLATES` of the authors' trainers/kgcoop.py."""
    authors = {
        "oxford_pets": "a photo of a {}, a type of pet.",
        "oxford_flowers": "a photo of a {}, a type of flower.",
        "fgvc_aircraft": "a photo of a {}, a type of aircraft.",
        "dtd": "a photo of a {}, a type of texture.",
        "eurosat": "a centered satellite photo of {}.",
        "food101": "a photo of {}, a type of food.",
        "ucf101": "a photo of a person doing {}.",
    }
    for name, data in CATALOG.items():
        spec, _ = parse_method("kgcoop").for_training(Conditions("base-to-new", name, 16))
        assert (spec.config.template or data.template) == authors.get(name, "a photo of a {}."), name


@pytest.mark.parametrize("name", [name for name, kind in METHODS.items() if Training.STEPS in kind.trained_by])
def test_each_docstring_names_the_schedule_of_the_recipe(name: str) -> None:
    text = " ".join((inspect.getdoc(METHODS[name]) or "").split())
    assert re.findall("cosine stepped (once an epoch|with every batch)", text) == [
        {"epoch": "once an epoch", "step": "with every batch"}[METHODS[name].recipe.schedule]
    ]
