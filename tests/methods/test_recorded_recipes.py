"""The recipe of each training is the one in the authors' settings files, as tools/golden_recipes.py recorded them."""

from typing import Any

import pytest

from gopro.methods.recipe import Conditions
from gopro.methods.registry import METHODS, parse_method
from tests.support.authors import DATA_SETS, RECORDED, TRAININGS

NAMES = {
    "coop": {"TOKENS": "tokens"},
    "maple": {"N_CTX": "tokens", "PROMPT_DEPTH": "depth"},
    "promptsrc": {
        "N_CTX_TEXT": "tokens",
        "N_CTX_VISION": "tokens",
        "PROMPT_DEPTH_TEXT": "depth",
        "PROMPT_DEPTH_VISION": "depth",
        "TEXT_LOSS_WEIGHT": "text_weight",
        "IMAGE_LOSS_WEIGHT": "image_weight",
        "GPA_MEAN": "gpa_mean",
        "GPA_STD": "gpa_std",
    },
    "mmrl": {"N_REP_TOKENS": "tokens", "REP_DIM": "dim", "REG_WEIGHT": "reg", "ALPHA": "alpha"},
    "tip-adapter-f": {
        "init_alpha": "alpha",
        "init_beta": "beta",
        "END_OF_ALPHAS": "max_alpha",
        "END_OF_BETAS": "max_beta",
    },
}
"""Our names of the authors' settings."""
GPA_OF_SOME_DATA_SETS = {"GPA_MEAN": 45, "GPA_STD": 5}
"""PromptSRC's settings for these data sets, in a comment of its file for few-shot learning."""
SOME_DATA_SETS = ("stanford_cars", "oxford_flowers", "fgvc_aircraft", "dtd", "eurosat")


def settings_file(method: str, training: Conditions) -> str | None:
    """Return the settings file that the authors' scripts take for a training; None if they have none."""
    task, imagenet, few = training.task, training.data == "imagenet", training.task == "few-shot"
    if method == "coop":
        epochs = "_ep50" if imagenet or task == "transfer" else ""
        if few and not imagenet:
            epochs = {1: "_ep50", 2: "_ep100", 4: "_ep100"}.get(training.shots, "")
        return f"CoOp/configs/trainers/CoOp/vit_b16{epochs}{'' if few else '_ctxv1'}.yaml"
    if method == "promptsrc":
        name = {"few-shot": "ep50_batch4_4+4ctx_few_shot", "transfer": "ep20_batch4_4+4ctx_cross_datasets"}
        return f"PromptSRC/configs/trainers/PromptSRC/vit_b16_c2_{name.get(task, 'ep20_batch4_4+4ctx')}.yaml"
    if method == "mmrl":
        name = "_cross_datasets" if task == "transfer" else "_imagenet" if imagenet else "_few_shot" if few else ""
        return f"MMRL/configs/trainers/MMRL/vit_b16{name}.yaml"
    if method == "maple" and not few:
        name = "_cross_datasets" if task == "transfer" else ""
        return f"multimodal-prompt-learning/configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx{name}.yaml"
    if method == "cocoop" and not few:
        return "CoOp/configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml"
    if method == "kgcoop":
        return "KgCoOp/KgCoOp/configs/trainers/KgCoOp/vit_b16_ep100_ctxv1.yaml"
    if method == "gopro-release":
        return "GOPro/configs/trainers/GOPro/vit_b16.yaml"
    if method == "tip-adapter-f" and few:
        return f"Tip-Adapter/configs/{'fgvc' if training.data == 'fgvc_aircraft' else training.data}.yaml"
    return None


def method_settings(method: str, training: Conditions, trainer: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of the method, by the authors' names: those of a file, and the scripts' over them."""
    if method == "coop":  # scripts/coop/main.sh gives the number of tokens; a file with words has that of its words
        return {"TOKENS": None if trainer.get("CTX_INIT") else 16}
    if method == "mmrl" and training.task != "transfer":  # scripts/mmrl/cross_datasets_train.sh gives the weight 0.2
        return trainer | RECORDED["mmrl"][DATA_SETS[training.data]]
    if method == "tip-adapter-f":
        end_of_betas, end_of_alphas = trainer["search_scale"]
        return trainer | {"END_OF_BETAS": end_of_betas, "END_OF_ALPHAS": end_of_alphas}
    if method == "promptsrc" and training.task == "few-shot" and training.data in SOME_DATA_SETS:
        return trainer | GPA_OF_SOME_DATA_SETS
    return trainer


RIVALS = ("coop", "cocoop", "kgcoop", "maple", "promptsrc", "mmrl", "tip-adapter-f", "gopro-release")


@pytest.mark.parametrize("method", RIVALS)
def test_every_training_of_the_tables_has_the_authors_recipe(method: str) -> None:
    tested = 0
    for training in TRAININGS:
        file = settings_file(method, training)
        if file is None:
            continue
        theirs = dict(RECORDED["recipes"][file])
        trainer = method_settings(method, training, theirs.pop("trainer", {}))
        spec, recipe = parse_method(method).for_training(training)
        ours = {name: getattr(recipe, name) for name in theirs}
        assert ours == theirs, training
        assert recipe.drop_last == (method != "tip-adapter-f"), training
        for name, setting in NAMES.get(method, {}).items():
            assert getattr(spec.config, setting) == trainer[name], (training, name)
        tested += 1
    assert tested >= 40


def test_every_variant_changes_a_training_of_the_tables() -> None:
    variants = [variant for kind in METHODS.values() for variant in kind.variants]
    assert len(variants) > 20
    assert all(any(variant.holds_for(training) for training in TRAININGS) for variant in variants)
