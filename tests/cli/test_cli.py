"""Help, bad input and exit codes of all commands."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image


def bad_inputs(tmp_path: Path, run: Path) -> dict[str, tuple[str, str]]:
    """Map what is wrong to a command and to a part of the message it must print."""
    taken = tmp_path / "taken"
    (taken / "a").mkdir(parents=True)
    (taken / "b").mkdir()
    Image.new("RGB", (8, 8)).save(taken / "a" / "1.png")
    one = tmp_path / "one"
    (one / "only").mkdir(parents=True)
    for i in range(4):
        Image.new("RGB", (8, 8)).save(one / "only" / f"{i}.png")
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "bad.yaml").write_text("a: [")
    (tmp_path / "list.yaml").write_text("- a")
    (tmp_path / "many.yaml").write_text("shots: many")
    (tmp_path / "key.yaml").write_text("shotz: 4")
    (tmp_path / "no-names.txt").write_text("\n \n")
    (tmp_path / "weights.safetensors").write_bytes(b"nothing")
    other = tmp_path / "other"
    shutil.copytree(run, other)
    content = json.loads((other / "config.json").read_text())
    content["backbone"]["fingerprint"] = "0" * 16
    (other / "config.json").write_text(json.dumps(content))
    new = f"--output {tmp_path / 'new'}"
    return {
        "unknown method": (f"train --data emoji-food --method gopr {new}", "did you mean gopro"),
        "unknown data set": (f"train --data emoji-foo {new}", "emoji-food"),
        "unknown style": (f"train --data emoji-food:oil {new}", "twemoji"),
        "unknown backbone": (f"train --data emoji-food --backbone ViT-B-61:openai {new}", "did you mean"),
        "backbone without weights": (f"train --data emoji-food --backbone ViT-B-16 {new}", "ViT-B-16:openai"),
        "broken weights": (
            f"train --data emoji-food --backbone openai:{tmp_path / 'weights.safetensors'} {new}",
            "weights.safetensors",
        ),
        "unknown flag": (f"train --data emoji-food --shotz 4 {new}", "--shots"),
        "unknown key": (f"train --data emoji-food --config {tmp_path / 'key.yaml'} {new}", "shotz"),
        "no config file": (f"train --data emoji-food --config {tmp_path / 'no.yaml'} {new}", "no such file"),
        "config not YAML": (f"train --data emoji-food --config {tmp_path / 'bad.yaml'} {new}", "bad.yaml"),
        "config a list": (f"train --data emoji-food --config {tmp_path / 'list.yaml'} {new}", "key: value"),
        "unknown command": ("trian", "trian"),
        "no data": (f"train {new}", "--data is missing: add --data DATA"),
        "nothing": ("train", "type gopro train --data FOLDER"),
        "no run to evaluate": ("eval", "RUN is missing: type gopro eval RUN"),
        "no output": ("benchmark base-to-new", "--output is missing: add --output OUTPUT"),
        "an image without a run": (
            f"predict {tmp_path / 'text.jpg'}",
            "IMAGES is missing: type gopro predict RUN IMAGES; the run comes first",
        ),
        "the image first": (f"predict {tmp_path / 'text.jpg'} {run}", "text.jpg is a file, not the folder of a run"),
        "empty class folder": (f"train --data {taken} {new}", str(taken / "b")),
        "one class": (f"train --data {one} {new}", "one"),
        "one class in a half": (f"benchmark base-to-new --data {one} {new}", "one"),
        "no number of shots": (
            f"train --data emoji-food --shots many {new}",
            """--shots is a whole number or "all", not 'many'""",
        ),
        "one number of shots": (
            f"benchmark few-shot --shots 1 x {new}",
            """--shots is a whole number or "all", not 'x'""",
        ),
        "no whole number": (f"train --data emoji-food --epochs ten {new}", "--epochs is a whole number, not 'ten'"),
        "no number": (f"train --data emoji-food --lr high {new}", "--lr is a number, not 'high'"),
        "no number in a file": (
            f"train --data emoji-food --config {tmp_path / 'many.yaml'} {new}",
            f"""{tmp_path / "many.yaml"}: shots is a whole number or "all", not 'many'""",
        ),
        "no shots": (f"train --data emoji-food --shots 0 {new}", "shots is 0: give at least 1 image per class, or all"),
        "not a choice": (f"train --data emoji-food --classes old {new}", "old"),
        "no cuda": (f"train --data emoji-food --device cuda {new}", "cuda"),
        "missing root": (f"train --data caltech101 {new}", "--root"),
        "wrong root": (f"train --data caltech101 --root {tmp_path} {new}", str(tmp_path)),
        "not a run": (f"eval {tmp_path}", "not the folder of a run"),
        "resume not a run": (f"train --resume {tmp_path}", "not the folder of a run"),
        "resume finished": (f"train --resume {run}", "finished"),
        "resume with settings": (f"train --resume {run} --data emoji-food {new}", "--resume"),
        "other backbone": (f"eval {other}", "other weights"),
        "no run": (f"predict {tmp_path / 'no'} {tmp_path / 'text.jpg'}", "no such folder"),
        "no names": (f"predict {run} {tmp_path / 'text.jpg'} --classes ,", "class names"),
        "a name twice": (f"predict {run} {tmp_path / 'text.jpg'} --classes a,b,a", "'a' is given twice"),
        "names twice": (f"predict {run} x.jpg --classes a --classes-file {tmp_path / 'text.jpg'}", "give one of them"),
        "no file of names": (f"predict {run} x.jpg --classes-file {tmp_path / 'no.txt'}", "no.txt"),
        "file of no names": (f"predict {run} x.jpg --classes-file {tmp_path / 'no-names.txt'}", "no class names"),
        "two forms": (f"predict {run} x.jpg --json --csv", "give one of them"),
        "top 0": (f"predict {run} x.jpg --top-k 0", "top_k is 0"),
        "batch 0": (f"predict {run} x.jpg --batch 0", "batch is 0"),
        "workers 0": (f"predict {run} x.jpg --workers 0", "workers is 0"),
        "unknown flag of predict": (f"predict {run} x.jpg --tpo 3", "--tpo"),
        "link without sorting": (f"predict {run} x.jpg --link hard", "--link needs --sort-into"),
        "confidence alone": (f"predict {run} x.jpg --min-confidence 0.5", "--min-confidence needs --sort-into"),
        "confidence in percent": (
            f"predict {run} x.jpg --sort-into {tmp_path / 'new'} --min-confidence 80",
            "from 0 to 1",
        ),
        "predict without cuda": (f"predict {run} x.jpg --device cuda", "cuda"),
        "head of no error": (f"head {run} --error 0", "error is 0"),
        "head of no names": (f"head {run} --classes ,", "class names"),
        "head of no file": (f"head {run} --classes-file {tmp_path / 'no.txt'}", "no.txt"),
        "output taken": (f"train --data emoji-food --output {run}", "not empty"),
    }


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, coop_run: Path, gopro) -> None:
    for mistake, (command, part) in bad_inputs(tmp_path, coop_run).items():
        code, out, err = gopro(*command.split())
        lines = [line for line in err.splitlines() if line.strip()]
        assert code == 2, f"{mistake}: exit code {code}\n{out}{err}"
        assert len(lines) == 1 and lines[0].startswith("error: ") and part in lines[0], f"{mistake}: {err}"
        assert not (tmp_path / "new").exists(), mistake


def test_the_help_begins_with_what_is_needed_and_marks_it(gopro) -> None:
    first = {
        "train": ["--data", "--output", "--method", "--backbone", "--shots"],
        "benchmark base-to-new": ["--data", "--output", "--suite", "--methods"],
        "benchmark cross-dataset": ["--source", "--targets", "--output", "--suite"],
    }
    for command, options in first.items():
        _, out, _ = gopro(*command.split(), "--help")
        rows = [line.strip("│ ") for line in out.splitlines() if line.startswith("│")]
        listed = [row.split()[0] if row[0] == "-" else row.split()[1] for row in rows if row.startswith(("--", "* "))]
        assert listed[: len(options)] == options, command
        marked = [row for row in rows if row.startswith("* ")]
        assert len(marked) == (command != "train")
    assert "Required, unless a run is" in gopro("train", "--help")[1]


def test_bad_input_in_a_process_of_its_own_prints_no_traceback() -> None:
    command = [sys.executable, "-m", "gopro.cli", "train", "--shotz", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_commands_of_a_group_are_reached(gopro) -> None:
    code, out, _ = gopro("data", "list")
    assert code == 0 and "imagenet_sketch" in out and "emoji-food" in out


def test_an_example_folder_is_not_overwritten(tmp_path: Path, gopro) -> None:
    assert gopro("data", "sample", tmp_path / "new")[0] == 0
    assert len(list((tmp_path / "new").glob("*/*.webp"))) == 220
    code, _, err = gopro("data", "sample", tmp_path / "new")
    assert code == 2 and "new is not empty" in err


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["train"],
        ["eval"],
        ["predict"],
        ["benchmark", "base-to-new"],
        ["benchmark", "cross-dataset"],
        ["report"],
        ["data", "check"],
        ["demo"],
    ],
)
def test_help_describes_every_option(command: list[str], gopro) -> None:
    code, out, _ = gopro(*command, "--help")
    assert code == 0
    for line in out.splitlines():
        words = line.strip("│ *").split()
        if words and words[0].startswith("--"):
            assert len(words) > 2, f"{' '.join(command)}: {line}"
