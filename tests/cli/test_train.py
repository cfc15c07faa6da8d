"""`gopro train`."""

import json
from pathlib import Path

import pytest


def test_a_folder_of_images_can_be_trained_on_evaluated_and_classified(
    two_classes: Path, tmp_path: Path, gopro
) -> None:
    run = tmp_path / "run"
    settings = "--shots 2 --epochs 2 --batch 4 --workers 0"
    code, out, _ = gopro(*f"train --data {two_classes} {settings} --output {run}".split())
    assert code == 0 and "Trained gopro on 2 classes" in out
    fitted = json.loads((run / "calibration.json").read_text())
    accuracies = f"{fitted['accuracy']:.1f} %, zero-shot CLIP's {fitted['zeroshot_accuracy']:.1f} %"
    assert f"Validation accuracy {accuracies} ({fitted['images']} images)." in out
    assert out.endswith(f"Next: gopro eval {run}\n")
    assert (two_classes / "split_gopro.json").is_file()
    code, out, _ = gopro("eval", run, "--workers", 0)
    assert code == 0 and "2 classes" in out
    code, out, _ = gopro("predict", run, two_classes / "red_things" / "0.png", "--json")
    assert {p["name"] for p in json.loads(out)["predictions"]} == {"red things", "blue things"}


def test_flags_take_precedence_over_the_config_file(tmp_path: Path, gopro) -> None:
    (tmp_path / "c.yaml").write_text("data: emoji-activities\nmethod: zeroshot\nshots: 2\nworkers: 0\n")
    code, _, err = gopro("train", "--config", tmp_path / "c.yaml", "--output", tmp_path / "run", "--shots", 3)
    assert code == 0, err
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["data"], config["method"], config["shots"]) == ("emoji-activities", "zeroshot", 3)


def test_an_interrupted_run_says_how_to_resume_it(gopro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("gopro.training.loop.backward", interrupt)
    train = "train --data emoji-activities --method coop --shots 1 --epochs 1 --workers 0"
    code, _, err = gopro(*train.split())
    assert code == 130
    assert err.splitlines()[-1] == "interrupted: to continue, type gopro train --resume runs/emoji-activities-coop"
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    code, out, _ = gopro("train", "--resume", "runs/emoji-activities-coop")
    assert code == 0 and "Next: gopro eval runs/emoji-activities-coop" in out


def test_the_config_of_a_run_repeats_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gopro) -> None:
    monkeypatch.chdir(tmp_path)
    train = "train --data emoji-activities --method coop[lr=0.01,weight_decay=0] --shots 1 --epochs 1 --workers 0"
    assert gopro(*train.split())[0] == 0
    first, again = tmp_path / "runs" / "emoji-activities-coop_lr_0.01_weight_decay_0", tmp_path / "again"
    code, _, err = gopro("train", "--config", first / "config.json", "--output", again)
    assert code == 0, err
    assert (again / "learned.safetensors").read_bytes() == (first / "learned.safetensors").read_bytes()
    recorded = json.loads((again / "config.json").read_text())["trained_with"]
    assert recorded == json.loads((first / "config.json").read_text())["trained_with"]
    assert (recorded["recipe"]["lr"], recorded["recipe"]["weight_decay"], recorded["recipe"]["epochs"]) == (0.01, 0, 1)
    assert gopro("train", "--config", first / "config.json")[0] == 0
    assert (tmp_path / "runs" / f"{first.name}-2" / "learned.safetensors").is_file()
