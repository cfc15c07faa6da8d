"""Selection of the epoch to keep: the last, or the best on the validation images."""

import csv
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from gopro.clip.backbone import Backbone
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.inference.evaluate import encode_samples, evaluate
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.runs.run import LEARNED
from gopro.training.train import resume, train
from tests.support.interrupt import Cut, cut_in

CONFIG = TrainConfig(
    data="emoji-activities",
    output=Path(),
    method="coop",
    shots=4,
    epochs=5,
    batch=32,
    lr=0.3,  # high, so that epochs differ
    classes="base",
    select="val",
    workers=0,
)


def val_column(folder: Path) -> list[float]:
    with (folder / "log.csv").open() as file:
        return [float(row["val"]) for row in csv.DictReader(file) if row["val"]]


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    folder = tmp_path_factory.mktemp("select") / "run"
    train(replace(CONFIG, output=folder), backbone=tiny)
    return folder


def test_the_best_epoch_on_validation_images_is_kept(chosen: Path, tiny: Backbone) -> None:
    curve = val_column(chosen)
    assert len(curve) == 5 and len(set(curve)) > 1, "the epochs must differ for the test to prove anything"
    few = load_dataset("emoji-activities").half("base").few_shot(4, 1)
    method = load_run(chosen, backbone=tiny).method
    kept = evaluate(method, encode_samples(method, few.val)).accuracy
    assert kept == pytest.approx(max(curve), abs=1e-3)


def test_the_last_epoch_is_kept_by_default(chosen: Path, tmp_path: Path, tiny: Backbone) -> None:
    curve = val_column(chosen)
    train(replace(CONFIG, output=tmp_path / "last", select="last"), backbone=tiny)
    same = (tmp_path / "last" / LEARNED).read_bytes() == (chosen / LEARNED).read_bytes()
    assert same == (curve[-1] == max(curve))
    with (tmp_path / "last" / "log.csv").open() as file:
        assert "val" not in next(csv.reader(file))


@pytest.mark.parametrize("epoch", [1, 4])
def test_a_resumed_run_keeps_the_same_epoch(chosen: Path, tmp_path: Path, tiny: Backbone, epoch: int) -> None:
    with pytest.raises(Cut):
        train(replace(CONFIG, output=tmp_path / "run"), backbone=tiny, on_step=cut_in(epoch))
    resume(tmp_path / "run", backbone=tiny)
    assert (tmp_path / "run" / LEARNED).read_bytes() == (chosen / LEARNED).read_bytes()
    assert val_column(tmp_path / "run") == val_column(chosen)


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Write two folders with the same training and validation images but different test images."""
    few = load_dataset("emoji-activities").half("base").few_shot(4, 1)
    mine, other = tmp_path / "a" / "mine", tmp_path / "b" / "mine"
    for part, samples in (("train", few.train), ("val", few.val), ("test", few.test)):
        for number, sample in enumerate(samples):
            if sample.label < 6:
                folder = mine / part / few.classnames[sample.label]
                folder.mkdir(parents=True, exist_ok=True)
                sample.image.open().save(folder / f"{number}.png")
    shutil.copytree(mine, other)
    names = sorted(folder.name for folder in (other / "test").iterdir())
    shutil.rmtree(other / "test")
    for name, wrong in zip(names, [*names[1:], names[0]], strict=True):
        shutil.copytree(mine / "test" / name, other / "test" / wrong)
    (other / "test" / names[0] / "broken.png").write_bytes(b"would stop whoever opens it")
    Image.new("RGB", (64, 64)).save(other / "test" / names[1] / "more.png")
    return mine, other


@pytest.mark.parametrize("select", ["last", "val"])
def test_test_images_influence_neither_training_nor_selection(
    folders: tuple[Path, Path], tmp_path: Path, tiny: Backbone, select: str
) -> None:
    bits = []
    for number, folder in enumerate(folders):
        output = tmp_path / f"run{number}"
        train(
            replace(CONFIG, data=str(folder), output=output, shots=2, classes="all", select=select),  # pyright: ignore
            backbone=tiny,
        )
        bits.append((output / LEARNED).read_bytes())
    assert bits[0] == bits[1]


def test_selection_needs_validation_images(folders: tuple[Path, Path], tmp_path: Path, tiny: Backbone) -> None:
    shutil.rmtree(folders[0] / "val")
    config = replace(CONFIG, data=str(folders[0]), output=tmp_path / "run", shots=2, classes="all")
    with pytest.raises(InputError, match="no validation images to choose an epoch by: use --select last"):
        train(config, backbone=tiny)
    assert not (tmp_path / "run").exists()
