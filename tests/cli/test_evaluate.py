"""`gopro eval` and `gopro head`."""

import json
from pathlib import Path

import pytest


def test_eval_prints_and_writes_the_same_accuracy(coop_run: Path, gopro) -> None:
    code, out, _ = gopro("eval", coop_run, "--classes", "new", "--workers", 0)
    assert code == 0
    row = json.loads((coop_run / "eval-emoji-activities_twemoji-new.json").read_text())
    assert f"accuracy {row['accuracy']:.2f} %" in out and len(out.splitlines()) == 2
    assert len(row["per_class"]) * 10 == row["n"]
    mean = sum(entry["accuracy"] for entry in row["per_class"]) / len(row["per_class"])
    assert row["macro_accuracy"] == pytest.approx(mean, abs=1e-3)


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


def test_the_head_of_a_method_with_shared_text_is_exact(coop_run: Path, gopro) -> None:
    code, out, _ = gopro("head", coop_run, "--classes", "red fox, snowy owl", "--workers", 0)
    assert code == 0 and "for 2 classes:" in out and "It equals the exact head" in out
