"""The images that a run is tested on."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from PIL import Image

from gopro.data.dataset import Dataset
from gopro.data.folders.class_folders import SPLIT_FILE, folder_dataset
from gopro.errors import InputError
from gopro.runs.config import TrainConfig
from gopro.runs.evaluation_data import evaluation_data
from gopro.runs.run import Run
from gopro.runs.training_images import write_training_images


def fill(folder: Path, shade: int, count: int = 10) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", (8, 8), (i, shade, 0)).save(folder / f"{i}.png")


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for shade, name in enumerate(("cat", "dog", "snowy_owl", "fox")):
        fill(tmp_path / "mine" / name, shade)
    return tmp_path / "mine"


def run_on(mine: Path, **settings: Any) -> Run:
    """Return a run that learned from two images per class, without a method."""
    folder = mine.parent / "run"
    folder.mkdir()
    config = TrainConfig(data=str(mine), output=folder, shots=2, **settings)
    part = folder_dataset(mine).half(config.classes)
    write_training_images(folder, part.few_shot(2, 1).train)
    method: Any = SimpleNamespace(classnames=part.classnames)
    return Run(folder, config, "mine", "a drawing of a {}.", method)


def counts(dataset: Dataset) -> dict[str, int]:
    labels = [sample.label for sample in dataset.test]
    return {name: labels.count(label) for label, name in enumerate(dataset.classnames)}


def test_another_folder_is_tested_whole_over_the_classes_of_the_run(mine: Path, tmp_path: Path) -> None:
    run = run_on(mine)
    for shade, name in enumerate(("Cat", "dog", "Snowy Owl", "wolf")):
        fill(tmp_path / "other" / name, 100 + shade)
    before = sorted(tmp_path.rglob("*"))
    tested = evaluation_data(run, str(tmp_path / "other"))
    assert counts(tested.dataset) == {"cat": 10, "dog": 10, "fox": 0, "snowy owl": 10}
    assert (tested.unknown, tested.absent) == ({"wolf": 10}, ("fox",))
    assert tested.dataset.template == run.template and not tested.is_own and not tested.other_data
    assert sorted(tmp_path.rglob("*")) == before
    folder_dataset(tmp_path / "other")  # splits it
    assert evaluation_data(run, str(tmp_path / "other")) == tested
    own = evaluation_data(run, str(tmp_path / "other"), names="data")
    assert counts(own.dataset) == dict.fromkeys(("Cat", "Snowy Owl", "dog", "wolf"), 10) and own.other_data
    half = evaluation_data(run, str(tmp_path / "other"), classes="new")
    assert counts(half.dataset) == {"fox": 0, "snowy owl": 10} and half.absent == ("fox",)


def test_test_alone_and_one_class_alone_are_accepted(mine: Path, tmp_path: Path) -> None:
    fill(tmp_path / "other" / "test" / "dog", 100)
    tested = evaluation_data(run_on(mine), str(tmp_path / "other"))
    assert counts(tested.dataset) == {"cat": 0, "dog": 10, "fox": 0, "snowy owl": 0}


def test_the_run_s_own_folder_is_tested_by_its_split_wherever_it_is(mine: Path, tmp_path: Path) -> None:
    run = run_on(mine)
    own = evaluation_data(run)
    assert counts(own.dataset) == dict.fromkeys(("cat", "dog", "fox", "snowy owl"), 3)
    assert own.is_own and evaluation_data(run, str(tmp_path / "run" / ".." / "mine")).is_own
    moved = tmp_path / "moved"
    shutil.move(mine, moved)
    tested = evaluation_data(run, str(moved))
    assert tested.is_own and counts(tested.dataset) == counts(own.dataset)
    (moved / SPLIT_FILE).unlink()  # only the split tells
    assert not evaluation_data(run, str(moved)).is_own and not (moved / SPLIT_FILE).exists()


def test_a_folder_called_like_a_data_set_is_another_one(mine: Path, tmp_path: Path) -> None:
    run = replace(run_on(mine.rename(tmp_path / "photos")), data="photos")
    tested = evaluation_data(run, "photos")
    assert not tested.is_own and tested.other_data and len(tested.dataset.classnames) == 30
    assert evaluation_data(run, str(tmp_path / "photos")).is_own


def test_a_folder_that_the_run_cannot_be_tested_on_is_refused(mine: Path, tmp_path: Path) -> None:
    run = run_on(mine, classes="base")
    fill(tmp_path / "birds" / "crow", 100)
    with pytest.raises(
        InputError, match=r"birds: none of its classes \(crow\) is one of the run's \(cat, dog\).*--names data"
    ):
        evaluation_data(run, str(tmp_path / "birds"))
    with pytest.raises(InputError, match=r"birds: only one class \(crow\)"):
        evaluation_data(run, str(tmp_path / "birds"), names="data")
    with pytest.raises(InputError, match="--classes new: the run knows only the base classes of mine"):
        evaluation_data(run, str(tmp_path / "birds"), classes="new")
