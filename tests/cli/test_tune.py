"""`gopro tune`, and the benchmark of what it chose."""

import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

SETTINGS = "--methods slip --shots 2 --bank 2 --batch 4 --workers 0 --backbones emoji"


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A folder of four classes, train, val and test."""
    folder = tmp_path / "mine"
    for number, name in enumerate(("apple", "bus", "cat", "dog")):
        for part, count in {"train": 4, "val": 2, "test": 2}.items():
            (folder / part / name).mkdir(parents=True)
            for index in range(count):
                colour = (60 * number, 200 - 40 * number, 40 * index)
                Image.new("RGB", (40, 40), colour).save(folder / part / name / f"{part}{index}.png")
    return folder


def test_the_command_that_it_prints_runs(mine: Path, tmp_path: Path, gopro) -> None:
    output = tmp_path / "tuned"
    code, out, err = gopro("tune", "--data", mine, *SETTINGS.split(), "--budget", 2, "--output", output)
    assert code == 0 and "2 runs to do" in err
    assert re.search(r"method +settings +HM +styles +mean", out) and re.search(r"slip +recipe.* +\d+\.\d\d", out)
    choice = json.loads((output / "tuned.json").read_text())["slip"]
    assert choice["trials"][0]["method"] == "slip" and len(choice["trials"]) == 2
    assert (choice["data"], choice["shots"], choice["seeds"], choice["budget"]) == ([str(mine)], [2], [11], 2)
    code, _, err = gopro("report", output)
    assert code == 2 and "what gopro tune found is in tuned.json" in err and len(err.splitlines()) == 1
    command = shlex.split(out.partition("To report them on other data: ")[2].strip())
    assert command[:3] == ["gopro", "benchmark", "base-to-new"] and choice["chosen"] in command
    command[command.index("--output") + 1] = str(tmp_path / "reported")
    rest = ["--data", mine, "--shots", 2, "--seeds", 1, "--bank", 2, "--batch", 4, "--workers", 0]
    code, out, _ = gopro(*command[1:], *rest, "--backbones", "emoji")
    assert code == 0 and "2 evaluations" in out


def test_a_choice_that_cannot_be_made_is_one_line(mine: Path, tmp_path: Path, gopro) -> None:
    code, _, err = gopro("tune", "--data", mine, "--methods", "linear-probe", "--output", tmp_path / "tuned")
    assert code == 2 and "error: linear-probe has no settings to try" in err and len(err.splitlines()) == 1
