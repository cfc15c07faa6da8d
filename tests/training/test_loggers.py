"""Losses for other programs: what TensorBoard reads of a run, and what is said where a package is missing."""

import csv
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.runs.config import TrainConfig
from gopro.training import loggers
from gopro.training.progress import Epoch
from gopro.training.resume_state import LOG
from gopro.training.train import resume, train
from tests.support.interrupt import Cut, cut_in

CONFIG = TrainConfig(
    data="emoji-activities", output=Path(), method="coop", shots=1, epochs=3, batch=16, classes="base", workers=0
)


def logged_by_us(folder: Path) -> list[dict[str, float]]:
    with (folder / LOG).open() as file:
        return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]


def test_tensorboard_reads_the_figures_of_an_interrupted_run(tmp_path: Path, tiny: Backbone) -> None:
    """Each step once, though the run was cut off within its second epoch and resumed."""
    pytest.importorskip("tensorboard", reason="the extra tensorboard is not installed: nothing reads the events")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    config = replace(CONFIG, output=tmp_path / "run", logger="tensorboard", select="val", shots=2)
    with pytest.raises(Cut):
        train(config, backbone=tiny, on_step=cut_in(epoch=1))
    resume(config.output, backbone=tiny)
    events = EventAccumulator(str(config.output / "tensorboard"))
    events.Reload()
    rows = logged_by_us(config.output)
    for name in ("total", "ce", "lr"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [row["step"] for row in rows]
        assert [scalar.value for scalar in scalars] == pytest.approx([row[name] for row in rows], rel=1e-4)
    val = {int(row["step"]): row["val"] for row in rows if "val" in row}
    assert len(val) == 3 and {s.step: pytest.approx(s.value, abs=1e-3) for s in events.Scalars("val")} == val


def test_lightnings_csv_has_the_columns_of_the_log(tmp_path: Path, tiny: Backbone) -> None:
    epochs: list[Epoch] = []
    run = train(replace(CONFIG, output=tmp_path / "run", logger="csv"), backbone=tiny, on_epoch=epochs.append)
    with (run.folder / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    ours = logged_by_us(run.folder)
    assert [float(row["total"]) for row in rows] == pytest.approx([row["total"] for row in ours], rel=1e-4)
    assert rows[0].keys() == {"epoch", "step", "lr", "ce", "total"}
    assert [epoch.epoch for epoch in epochs] == [0, 1, 2] and epochs[-1].seconds_left == 0
    assert epochs[0].loss == pytest.approx(sum(row["total"] for row in ours if row["epoch"] == 0) / len(ours) * 3)


def test_what_a_missing_package_is_in_is_said_before_anything_is_written(
    tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loggers, "find_spec", lambda name: None if name == "wandb" else find_spec("json"))
    with pytest.raises(InputError) as caught:
        train(replace(CONFIG, output=tmp_path / "run", logger="wandb"), backbone=tiny)
    assert str(caught.value) == "--logger wandb needs more packages (wandb): pip install '.[wandb]'"
    assert not (tmp_path / "run").exists()


def test_weights_and_biases_continues_a_resumed_run(
    tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in loggers.PACKAGES["wandb"]:
        pytest.importorskip(package, reason="the extra wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    config = replace(CONFIG, output=tmp_path / "run", logger="wandb")
    with pytest.raises(Cut):
        train(config, backbone=tiny, on_step=cut_in(epoch=1))
    resume(config.output, backbone=tiny)
    begun = sorted(path.name.rpartition("-")[2] for path in (config.output / "wandb").glob("offline-run-*"))
    assert len(begun) == 2 and len(set(begun)) == 1
