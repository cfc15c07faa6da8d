"""`gopro eval` and `gopro head`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from gopro.clip.backbone import load_backbone
from gopro.data.load_dataset import load_dataset
from gopro.inference.evaluate import evaluate_images
from gopro.methods.registry import build_method


def test_eval_prints_and_writes_the_same_accuracy(coop_run: Path, gopro) -> None:
    code, out, _ = gopro("eval", coop_run, "--classes", "new", "--workers", 0)
    assert code == 0
    row = json.loads((coop_run / "eval-emoji-activities_twemoji-new.json").read_text())
    assert f"accuracy {row['accuracy']:.2f} %" in out and len(out.splitlines()) == 2
    assert len(row["per_class"]) * 10 == row["n"]
    mean = sum(entry["accuracy"] for entry in row["per_class"]) / len(row["per_class"])
    assert row["macro_accuracy"] == pytest.approx(mean, abs=1e-3)


def test_eval_compares_with_the_prompt_of_the_tested_data_set(
    zeroshot_run: Path, gopro, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = replace(load_dataset("emoji-activities"), template="{} texture.")
    monkeypatch.setattr(sys.modules["gopro.data.load_dataset"], "load_dataset", lambda *_: dataset)
    code, _, err = gopro("eval", zeroshot_run, "--data", "emoji-activities", "--classes", "new", "--workers", 0)
    assert code == 0, err
    row = json.loads((zeroshot_run / "eval-emoji-activities_twemoji-new.json").read_text())
    part, backbone = dataset.half("new"), load_backbone()
    own, default = (
        evaluate_images(build_method("zeroshot", backbone, part.classnames, template), part.test).accuracy
        for template in ("{} texture.", "a photo of a {}.")
    )
    assert row["accuracy"] == pytest.approx(own, abs=1e-3) and own != default


@pytest.mark.slow
def test_a_first_order_head_is_built_and_compared_with_the_exact_one(tmp_path: Path, gopro) -> None:
    run, names = tmp_path / "run", tmp_path / "names.txt"
    settings = "--data emoji-activities --classes base --shots 1 --epochs 1 --batch 8 --workers 0"
    code, _, err = gopro(*f"train {settings} --method cocoop --output {run}".split())
    assert code == 0, err
    names.write_text("red fox\n\n snowy owl \ntrain\n", "utf-8")
    code, out, _ = gopro("head", run, "--classes-file", names, "--error", 0.1, "--workers", 0)
    assert code == 0 and "3 classes" in out and "21 images not used to build it" in out
    assert len(list((run / "heads").iterdir())) == 1
    code, out, _ = gopro("eval", run, "--classes", "new", "--head", "first-order", "--workers", 0)
    assert code == 0 and len(list((run / "heads").iterdir())) == 2
    exact, head, _ = out.splitlines()
    row = json.loads((run / "eval-emoji-activities_twemoji-new.json").read_text())
    assert f"accuracy {row['accuracy']:.2f} %" in exact
    assert f"accuracy {row['first_order']['accuracy']:.2f} %" in head
    assert f"same top class as the exact head for {row['first_order']['agreement']['top1']:.2f} %" in head
    assert row["first_order"]["agreement"]["images"] == row["n"]


@pytest.mark.slow
def test_the_head_treats_other_data_as_the_exact_one_does(tmp_path: Path, gopro) -> None:
    """On images in another style MMRL leaves out its representation tokens, whatever the class names."""
    run = tmp_path / "run"
    settings = "--data emoji-activities --classes base --shots 1 --epochs 1 --batch 16 --workers 0"
    code, _, err = gopro(*f"train {settings} --method mmrl[dim=8] --output {run}".split())
    assert code == 0, err
    flags = "--data emoji-activities:noto --classes base --head first-order --workers 0"
    code, _, err = gopro("eval", run, *flags.split())
    assert code == 0, err
    row = json.loads((run / "eval-emoji-activities_noto-base.json").read_text())
    assert row["first_order"]["agreement"]["max"] < 1e-4 and not (run / "heads").exists()


def test_the_head_of_a_method_with_shared_text_is_exact(coop_run: Path, gopro) -> None:
    code, out, _ = gopro("head", coop_run, "--classes", "red fox, snowy owl", "--workers", 0)
    assert code == 0 and "for 2 classes:" in out and "It equals the exact head" in out
