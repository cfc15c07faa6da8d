"""Results of several folders in one report."""

import json
from pathlib import Path
from typing import Any

import pytest

from gopro.benchmark.report.experiment import Experiment
from gopro.benchmark.report.join import common_folder
from gopro.errors import InputError


def row(method: str, seed: int, **changes: Any) -> dict[str, Any]:
    return {
        "protocol": "base-to-new",
        "source": "mine",
        "data": "mine",
        "method": method,
        "backbone": "emoji",
        "shots": 4 if seed else 0,
        "seed": seed,
        "classes": "base",
        "accuracy": 50.0 + seed,
        "run": f"{method}-seed{seed}",
        "made_with": {"recipe": {"epochs": 5}},
        "test_images": "0123",
        **changes,
    }


def write(folder: Path, *rows: dict[str, Any]) -> Path:
    folder.mkdir(parents=True)
    (folder / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_folders_of_an_array_become_one_experiment(tmp_path: Path) -> None:
    a = write(tmp_path / "a", row("zeroshot", 0), row("gopro", 1))
    b = write(tmp_path / "b", row("zeroshot", 0), row("gopro", 2))
    (b / "runs" / "gopro-seed2").mkdir(parents=True)
    (b / "runs" / "gopro-seed2" / "log.csv").write_text("epoch,step\n0,1\n")
    (a / "history.jsonl").write_text(json.dumps({"when": "1", "command": "a", "machine": {}, "versions": {}}) + "\n")
    experiment = Experiment(a, b)
    assert [(r["method"], r["seed"]) for r in experiment.rows] == [("zeroshot", 0), ("gopro", 1), ("gopro", 2)]
    assert experiment.log("gopro-seed2") == [{"epoch": 0.0, "step": 1.0}] and len(experiment.history) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"made_with": {"recipe": {"epochs": 9}}}, "was made with epochs 5, not 9"),
        ({"test_images": "4567"}, "was tested on other images"),
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_results_that_were_made_differently_are_not_joined(
    seed: int, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    a, b = write(tmp_path / "a", row("gopro", 1)), write(tmp_path / "b", row("gopro", seed, **changes))
    with pytest.raises(InputError) as caught:
        Experiment(a, b)
    assert words in str(caught.value) and str(a) in str(caught.value) and str(b) in str(caught.value)


def test_a_folder_without_results_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty has no results"):
        Experiment(write(tmp_path / "a", row("gopro", 1)), tmp_path / "empty")


def test_a_joint_report_stands_beside_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert common_folder([Path("runs/a")]) == Path("runs/a")
    assert common_folder([Path("runs/a"), Path("runs/b")]) == Path("runs/report")
    assert common_folder([Path("runs"), Path("runs/b")]) == Path("report")
