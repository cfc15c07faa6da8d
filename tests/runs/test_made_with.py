"""The record of all that can change a result."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from gopro.clip.backbone import Backbone
from gopro.data.load_dataset import load_dataset
from gopro.methods.recipe import Recipe
from gopro.methods.registry import METHODS, parse_method
from gopro.runs.config import TrainConfig, TrainSettings, settings_that_change_results
from gopro.runs.made_with import difference, made_with, recorded
from gopro.runs.run import CONFIG
from gopro.runs.trained_with import TrainedWith
from gopro.training.train import train
from tests.support.fake_sweep import own_images


def planned(config: TrainConfig) -> dict[str, Any]:
    spec, authors = parse_method(config.method).for_training(config.conditions)
    return made_with(config, TrainedWith.of(config, spec, authors, load_dataset(config.data)))


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"data": "emoji-activities", "output": Path("run"), "method": "coop", "shots": 1, **changes})


@pytest.mark.parametrize("method", METHODS)
def test_a_record_survives_json(method: str) -> None:
    """It is compared with one that was read from results.jsonl."""
    record = planned(config(method=method))
    assert difference(json.loads(json.dumps(record)), record) is None


def other_value(value: Any) -> Any:
    """Return another JSON value."""
    if isinstance(value, bool) or value is None:
        return not value
    return f"other than {value}" if isinstance(value, str) else value + 1


def test_a_recorded_recipe_has_a_value_for_every_field(tmp_path: Path) -> None:
    recipe = planned(config(data=own_images(tmp_path / "own"), crop=None))["recipe"]
    assert recipe.pop("unlabeled_shots") is None  # no such images
    assert None not in recipe.values() and recipe["crop"] == 0.08


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe)])
def test_each_field_of_the_recipe_makes_a_difference(name: str) -> None:
    record = planned(config())
    if name in record:  # `bank`, which was recorded before recipes had it
        changed = {**record, name: other_value(record[name])}
    else:
        changed = {**record, "recipe": {**record["recipe"], name: other_value(record["recipe"][name])}}
    assert name in (difference(record, changed) or "")


def test_each_setting_that_can_change_results_is_recorded() -> None:
    record = planned(config())
    kept = {*record, *record["recipe"]}
    assert set(settings_that_change_results()) <= kept
    same = {field.name for field in fields(TrainSettings)} - set(settings_that_change_results())
    assert same and not same & kept


@pytest.mark.parametrize("method", METHODS)
def test_each_setting_of_each_method_makes_a_difference(method: str) -> None:
    record = planned(config(method=method))
    assert set(record["settings"]) == {field.name for field in fields(METHODS[method].config)}
    for name, value in record["settings"].items():
        changed = {**record, "settings": {**record["settings"], name: other_value(value)}}
        assert (difference(record, changed) or "").startswith(f"was made with {name} ")


@pytest.mark.parametrize(("method", "bank"), [("coop", 8), ("coop", None), ("gopro", 8), ("tip-adapter", 8)])
def test_the_bank_of_rows_that_recorded_it_as_a_setting_still_counts(method: str, bank: int | None) -> None:
    before = planned(config(method=method, bank=bank))
    assert before["bank"] == (bank or 0)
    assert "bank" not in before["recipe"], "earlier versions had it beside the recipe"
    assert difference(before, planned(config(method=method, bank=1))) == f"was made with bank {bank or 0}, not 1"


def test_the_bank_of_a_run_that_recorded_it_as_a_setting_still_counts(tmp_path: Path, tiny: Backbone) -> None:
    settings = config(output=tmp_path / "run", epochs=1, batch=64, workers=0, device="cpu", bank=2)
    train(settings, backbone=tiny)
    content = json.loads((tmp_path / "run" / CONFIG).read_text())
    del content["trained_with"]["recipe"]["bank"]
    (tmp_path / "run" / CONFIG).write_text(json.dumps(content))
    before = recorded(tmp_path / "run")
    assert before is not None and difference(before, planned(settings)) is None
    assert difference(before, planned(replace(settings, bank=3))) == "was made with bank 2, not 3"


def test_zero_shot_depends_on_its_prompts_and_precision_but_on_no_recipe() -> None:
    record = planned(config(method="zeroshot"))
    assert difference(record, planned(config(method="zeroshot", epochs=5, lr=0.5))) is None
    for name, changes in {
        "template": {"method": "zeroshot[template=a {}]"},
        "ensemble": {"method": "zeroshot[ensemble=80]"},
        "precision": {"method": "zeroshot", "precision": "bf16"},
    }.items():
        assert f"was made with {name}" in (difference(record, planned(config(**changes))) or "")


def test_a_setting_that_an_earlier_version_did_not_record_is_named(tmp_path: Path, tiny: Backbone) -> None:
    """Even if its default would be the same."""
    settings = config(output=tmp_path / "run", epochs=1, batch=64, workers=0, device="cpu")
    train(settings, backbone=tiny)
    now = planned(settings)
    before = recorded(tmp_path / "run")
    assert before is not None and difference(before, now) is None
    content = json.loads((tmp_path / "run" / CONFIG).read_text())
    del content["config"]["accumulate"], content["trained_with"]["recipe"]["eps"]
    (tmp_path / "run" / CONFIG).write_text(json.dumps(content))
    before = recorded(tmp_path / "run")
    assert before is not None
    assert difference(before, now) == "was made by an earlier version of gopro, which did not record eps"
    before["recipe"]["eps"] = now["recipe"]["eps"]
    assert difference(before, now) == "was made by an earlier version of gopro, which did not record accumulate"
    del content["trained_with"]
    (tmp_path / "run" / CONFIG).write_text(json.dumps(content))
    assert recorded(tmp_path / "run") is None


def test_a_new_setting_changes_nothing_unless_it_is_given_or_switched_on() -> None:
    assert difference({}, {"words": None, "steps": False}) is None
    for value in (True, 0, 0.0, ""):
        assert difference({}, {"steps": value}) is not None
