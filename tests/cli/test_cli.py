"""The command line as a person meets it: its lines, its files, its exit codes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from gopro import cli


@pytest.fixture
def gopro(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs a command in this process; gives its exit code and what it printed."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> tuple[int, str, str]:
        code = 0
        try:
            cli.main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = int(stop.code or 0)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "run"
    cli.main(
        f"train --data emoji-activities --method coop --shots 1 --epochs 1 --batch 32 --workers 0 --classes base "
        f"--output {folder}".split()
    )
    return folder


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.new("RGB", (80, 60), (200, 120, 10)).save(tmp_path / "orange.png")
    return tmp_path / "orange.png"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of six images each."""
    for c, name in enumerate(("red_things", "blue_things")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(6):
            colour = (200 - 180 * c, 20 + 5 * i, 20 + 180 * c)
            Image.new("RGB", (40, 40), colour).save(tmp_path / "mine" / name / f"{i}.png")
    return tmp_path / "mine"


def test_eval_writes_what_it_prints(run_folder: Path, gopro) -> None:
    code, out, _ = gopro("eval", run_folder, "--classes", "new", "--workers", 0)
    assert code == 0
    row = json.loads((run_folder / "eval-emoji-activities_twemoji-new.json").read_text())
    assert f"accuracy {row['accuracy']:.2f} %" in out and len(out.splitlines()) == 1
    assert len(row["per_class"]) * 10 == row["n"]
    mean = sum(entry["accuracy"] for entry in row["per_class"]) / len(row["per_class"])
    assert row["macro_accuracy"] == pytest.approx(mean, abs=1e-3)


def test_a_head_is_built_and_evaluated_beside_the_exact_one(tmp_path: Path, gopro) -> None:
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
    exact, head = out.splitlines()
    row = json.loads((run / "eval-emoji-activities_twemoji-new.json").read_text())
    assert f"accuracy {row['accuracy']:.2f} %" in exact
    assert f"accuracy {row['first_order']['accuracy']:.2f} %" in head
    assert f"same top class as the exact head for {row['first_order']['agreement']['top1']:.2f} %" in head
    assert row["first_order"]["agreement"]["images"] == row["n"]


def test_a_head_of_shared_text_says_that_it_is_exact(run_folder: Path, gopro) -> None:
    code, out, _ = gopro("head", run_folder, "--classes", "red fox, snowy owl", "--workers", 0)
    assert code == 0 and "2 classes, 0 terms" in out and "It is exact" in out


def test_predict_prints_names_and_json(run_folder: Path, image: Path, gopro) -> None:
    code, out, _ = gopro("predict", run_folder, image, image, "--classes", "red fox, snow owl", "--json")
    objects = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(objects) == 2
    probabilities = {p["name"]: p["probability"] for p in objects[0]["predictions"]}
    assert set(probabilities) == {"red fox", "snow owl"}
    assert sum(probabilities.values()) == pytest.approx(1, abs=1e-5)
    code, out, _ = gopro("predict", run_folder, image, "--top-k", 2)
    assert code == 0 and out.count("%") == 2 and out.startswith(str(image))


def test_a_folder_of_images_goes_from_training_to_prediction(folder: Path, tmp_path: Path, gopro) -> None:
    run = tmp_path / "run"
    code, out, _ = gopro(*f"train --data {folder} --shots 2 --epochs 2 --batch 4 --workers 0 --output {run}".split())
    assert code == 0 and "Trained gopro on 2 classes" in out
    assert (folder / "split_gopro.json").is_file()
    code, out, _ = gopro("eval", run, "--workers", 0)
    assert code == 0 and "2 classes" in out
    code, out, _ = gopro("predict", run, folder / "red_things" / "0.png", "--json")
    assert {p["name"] for p in json.loads(out)["predictions"]} == {"red things", "blue things"}


def test_a_config_file_gives_settings_and_flags_go_over_it(tmp_path: Path, gopro) -> None:
    (tmp_path / "c.yaml").write_text("data: emoji-activities\nmethod: zeroshot\nshots: 2\nworkers: 0\n")
    code, _, err = gopro("train", "--config", tmp_path / "c.yaml", "--output", tmp_path / "run", "--shots", 3)
    assert code == 0, err
    config = json.loads((tmp_path / "run" / "config.json").read_text())["config"]
    assert (config["data"], config["method"], config["shots"]) == ("emoji-activities", "zeroshot", 3)


def wrong(tmp_path: Path, run: Path) -> dict[str, tuple[str, str]]:
    """What is wrong -> the command and a word of its message."""
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
        "no data": (f"train {new}", "--data"),
        "nothing": ("train", "--data"),
        "empty class folder": (f"train --data {taken} {new}", str(taken / "b")),
        "one class": (f"train --data {one} {new}", "one"),
        "one class in a half": (f"benchmark base-to-new --data {one} {new}", "one"),
        "too many shots": (f"train --data emoji-food --shots 33 {new}", "33 shots"),
        "not a number": (f"train --data emoji-food --shots many {new}", "many"),
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


def test_bad_input_is_one_line_and_exit_code_2(tmp_path: Path, run_folder: Path, gopro) -> None:
    for what, (command, word) in wrong(tmp_path, run_folder).items():
        code, out, err = gopro(*command.split())
        lines = [line for line in err.splitlines() if line.strip()]
        assert code == 2, f"{what}: exit code {code}\n{out}{err}"
        assert len(lines) == 1 and lines[0].startswith("error: ") and word in lines[0], f"{what}: {err}"
        assert not (tmp_path / "new").exists(), what


def test_a_real_process_exits_2_without_a_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "gopro.cli", "eval", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "results"
    cli.main(f"benchmark base-to-new {SMALL} --output {folder}".split())
    return folder


SMALL = "--data emoji-activities --methods zeroshot coop --seeds 1 2 --shots 1 --epochs 1 --batch 32 --workers 0"


def test_benchmark_says_how_many_runs_and_shows_the_table(results: Path, tmp_path: Path, gopro) -> None:
    code, out, err = gopro(*f"benchmark base-to-new {SMALL} --output {tmp_path / 'new'}".split())
    said = err.splitlines()
    assert code == 0 and said[0] == "3 runs to do"
    assert said[1] == "0 of 3 runs done; started zeroshot on emoji-activities"
    assert said[2] == "1 of 3 runs done; started coop on emoji-activities (1 shot, seed 1)"
    assert said[3].startswith("2 of 3 runs done, about ")
    assert said[3].endswith(" left; started coop on emoji-activities (1 shot, seed 2)")
    assert "Base" in out and "zeroshot" in out and "coop" in out
    assert f"6 evaluations in {tmp_path}/new/results.jsonl" in out and f"Next: gopro report {tmp_path}/new" in out
    code, again, err = gopro(*f"benchmark base-to-new {SMALL} --output {tmp_path / 'new'}".split())
    assert code == 0 and err == "0 runs to do, 3 already done\n" and again == out


def test_report_writes_a_page_tables_and_plots(results: Path, gopro) -> None:
    code, out, _ = gopro("report", results)
    assert code == 0 and out.startswith(str(results / "report.html")) and len(out.splitlines()) == 1
    assert {"report.html", "tables.md", "tables.tex", "plots"} <= {path.name for path in results.iterdir()}
    assert "Difference to" not in (results / "tables.md").read_text(encoding="utf-8")  # gopro was not run
    code, _, err = gopro("report", results / "runs")
    assert code == 2 and "results.jsonl" in err and len(err.splitlines()) == 1


def test_against_names_the_method_to_compare_with(results: Path, tmp_path: Path, gopro) -> None:
    code, out, _ = gopro(*f"benchmark base-to-new {SMALL} --output {results} --against zeroshot".split())
    assert code == 0 and "Difference to zeroshot" in out and re.search(r"coop +[+−]?\d+\.\d\d \[", out)
    code, _, _ = gopro("report", results, "--against", "zeroshot")
    assert code == 0 and "### Difference to zeroshot" in (results / "tables.md").read_text(encoding="utf-8")
    code, _, err = gopro("report", results, "--against", "gopro")
    assert code == 2 and "zeroshot, coop" in err and len(err.splitlines()) == 1
    code, _, err = gopro(*f"benchmark base-to-new {SMALL} --output {tmp_path / 'new'} --against maple".split())
    assert code == 2 and "against maple" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_failed_runs_are_said_at_the_end_with_exit_code_1(folder: Path, tmp_path: Path, gopro) -> None:
    (folder / "red_things" / "3.png").write_bytes(b"broken")
    command = f"benchmark few-shot --data {folder} --shots 3 --seeds 1 --epochs 1 --workers 0 --output {tmp_path / 'o'}"
    code, _, err = gopro(*command.split(), "--methods", "coop")
    assert code == 1 and "coop on " in err and "red_things/3.png" in err and "1 run failed" in err
    assert "Traceback" not in err and json.loads((tmp_path / "o" / "failures.jsonl").read_text())["method"] == "coop"


def test_data_is_part_of_the_command(gopro) -> None:
    code, out, _ = gopro("data", "list")
    assert code == 0 and "imagenet_sketch" in out and "emoji-food" in out


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
def test_help_says_what_every_setting_is(command: list[str], gopro) -> None:
    code, out, _ = gopro(*command, "--help")
    assert code == 0
    for line in out.splitlines():
        words = line.strip("│ *").split()
        if words and words[0].startswith("--"):
            assert len(words) > 2, f"{' '.join(command)}: {line}"
