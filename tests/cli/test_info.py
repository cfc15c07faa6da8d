"""`gopro info`: a run in words."""

import json
import shutil
from pathlib import Path


def test_a_run_is_described_in_80_columns(coop_run: Path, zeroshot_run: Path, gopro, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, _ = gopro("info", coop_run)
    lines = dict(line.split(maxsplit=1) for line in out.splitlines() if not line.startswith(" "))
    assert code == 0 and lines["method"].strip() == "coop" and lines["backbone"].strip() == "emoji"
    assert lines["data"].strip() == "emoji-activities:twemoji, base classes"
    assert lines["classes"].startswith("43 classes: 1st place medal, 2nd place medal")
    fitted = json.loads((coop_run / "calibration.json").read_text())
    assert f"accuracy {fitted['accuracy']:.1f} %" in lines["validation"]
    assert lines["temperature"].startswith(f"{fitted['temperature']:.2f}, ")
    assert max(map(len, out.splitlines())) <= 80
    assert "none: the method needs no training" in gopro("info", zeroshot_run)[1]


def test_images_to_validate_on_are_not_taken_for_shots(coop_run: Path, tmp_path: Path, gopro) -> None:
    assert "images with those to validate on" not in " ".join(gopro("info", coop_run)[1].split())
    run = tmp_path / "run"
    shutil.copytree(coop_run, run)
    content = json.loads((run / "config.json").read_text())
    content["config"]["select"] = "val"
    (run / "config.json").write_text(json.dumps(content))
    assert "images with those to validate on" in " ".join(gopro("info", run)[1].split())


def unwrapped(text: str) -> str:
    """Remove all white space, as a long path is wrapped anywhere."""
    return "".join(text.split())


def test_tests_and_what_is_missing_are_said(coop_run: Path, tmp_path: Path, gopro) -> None:
    run = tmp_path / "run"
    shutil.copytree(coop_run, run, ignore=shutil.ignore_patterns("eval-*"))
    assert f"none: type gopro eval {run}".replace(" ", "") in unwrapped(gopro("info", run)[1])
    row = {"data": "pets", "classes": "all", "accuracy": 91.25, "macro_accuracy": 90.0, "n": 80}
    (run / "eval-pets-all.json").write_text(json.dumps(row))
    assert "pets, all classes: accuracy 91.25 % on 80 images" in gopro("info", run)[1]
    (run / "calibration.json").unlink()
    assert "none: the run was imported, or an earlier version trained it" in gopro("info", run)[1]
    (run / "learned.safetensors").unlink()
    assert f"not finished: resume it with gopro train --resume {run}".replace(" ", "") in unwrapped(
        gopro("info", run)[1]
    )
    code, _, err = gopro("info", tmp_path)
    assert code == 2 and "is not the folder of a run" in err
