"""The settings of runs: where a run is written if nobody says so, and what goes over a recipe."""

from pathlib import Path

import pytest

from gopro.methods.recipe import Recipe
from gopro.runs.config import TrainConfig, TrainSettings


def test_the_folder_of_joined_data_sets_has_the_names_of_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("photo", "art"):
        (tmp_path / "c++" / name).mkdir(parents=True)
    config = TrainConfig(data="c++/photo+c++/art+emoji-food", method="coop")
    assert config.output == Path("runs/photo_art_emoji-food-coop")


def test_a_run_gets_a_new_folder_named_after_data_and_method(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-images" / "cat").mkdir(parents=True)

    def folder(data: str, method: str = "gopro") -> str:
        return TrainConfig(data=data, method=method).output.as_posix()

    assert folder("my-images") == folder("my-images/") == folder(str(tmp_path / "my-images")) == "runs/my-images-gopro"
    Path("runs/my-images-gopro").mkdir(parents=True)
    assert folder("my-images") == "runs/my-images-gopro"  # empty
    Path("runs/my-images-gopro/config.json").touch()
    assert folder("my-images") == "runs/my-images-gopro-2"
    Path("runs/my-images-gopro-2").touch()
    assert folder("my-images") == "runs/my-images-gopro-3"
    assert folder("emoji-food:noto", "coop[tokens=4]") == "runs/emoji-food_noto-coop_tokens_4"
    monkeypatch.chdir(tmp_path / "my-images")
    assert folder(".") == "runs/my-images-gopro"
    config = TrainConfig(data=".", output="here")
    assert config.output == Path("here") and TrainConfig.from_json(config.to_json()) == config


def test_weight_decay_goes_over_the_recipe() -> None:
    assert TrainSettings(weight_decay=0).recipe(Recipe(weight_decay=0.1)).weight_decay == 0
    assert TrainSettings().recipe(Recipe(weight_decay=0.1)).weight_decay == 0.1
