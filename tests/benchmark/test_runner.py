"""Sweeps: the files they write, what a second call does, and failures, killed processes and locked folders."""

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from gopro import benchmark
from gopro.benchmark import worker as worker_module
from gopro.benchmark.predictions import Predictions
from gopro.benchmark.runner import SweepEvent, SweepResult
from gopro.clip.backbone import Backbone
from gopro.data.load_dataset import load_dataset
from gopro.data.unlabeled import find_unlabeled
from gopro.errors import InputError
from gopro.inference.evaluate import evaluate_images
from gopro.methods.coop import CoOp, CoOpConfig
from gopro.methods.recipe import Recipe
from gopro.methods.registry import build_method
from gopro.runs.config import BenchmarkConfig, TrainSettings, TransferConfig, settings_that_change_results
from gopro.runs.results import KEY, Results
from gopro.runs.run import CONFIG, LEARNED
from gopro.training.folder_lock import lock_folder
from tests.support.fake_sweep import own_images


def figures(rows: list[dict]) -> list[dict]:
    """Return the rows sorted, without the columns that depend on time and machine."""
    stable = [
        {key: value for key, value in row.items() if "seconds" not in key and "memory" not in key} for row in rows
    ]
    return sorted(stable, key=str)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> BenchmarkConfig:
    """Zero-shot CLIP and two seeds of CoOp on two data sets of six classes; tests choose the output folder."""
    folder = tmp_path_factory.mktemp("data")
    return BenchmarkConfig(
        data=(own_images(folder / "pets"), own_images(folder / "cars")),
        backbones=("emoji",),
        output=Path(),
        methods=("zeroshot", "coop"),
        seeds=(1, 2),
        shots=(1,),
        epochs=1,
        batch=32,
        workers=0,
    )


def one_data_set(config: BenchmarkConfig, output: Path) -> BenchmarkConfig:
    """The same sweep on its first data set alone."""
    assert config.data is not None
    return replace(config, output=output, data=config.data[:1])


@pytest.fixture(scope="module")
def swept(small: BenchmarkConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[BenchmarkConfig, SweepResult]:
    config = replace(small, output=tmp_path_factory.mktemp("sweep"))
    return config, benchmark("base-to-new", config, command="gopro benchmark base-to-new")


def test_every_evaluation_is_a_row_with_its_predictions(swept: tuple[BenchmarkConfig, SweepResult]) -> None:
    config, outcome = swept
    assert not outcome.failures and not (config.output / "failures.jsonl").exists()
    assert figures(lines(config.output / "results.jsonl")) == figures(outcome.rows)
    assert len(outcome.rows) == 2 * 2 * (1 + 2)  # data sets, halves, zeroshot and two seeds of coop
    assert len({tuple(row[key] for key in KEY) for row in outcome.rows}) == len(outcome.rows)
    for row in outcome.rows:
        assert {"macro_accuracy", "n", "seconds", "train_seconds", "peak_memory_mib", "parameters"} <= set(row)
        data = row["data"].replace(":", "_")
        predictions = Predictions.load(
            config.output / "runs" / row["run"] / f"test-{data}-{row['classes']}.safetensors"
        )
        assert 100 * (predictions.top[:, 0] == predictions.labels).double().mean() == pytest.approx(
            row["accuracy"], abs=1e-3
        )
        assert (predictions.classes, len(predictions.labels)) == (row["classes"], row["n"])
    parameters = [row["parameters"] for row in outcome.rows if row["method"] == "coop"]
    assert set(parameters) == {4 * 128}  # four tokens of the embedded model's width
    [call] = lines(config.output / "history.jsonl")
    assert (
        call["command"] == "gopro benchmark base-to-new" and "torch" in call["versions"] and "cores" in call["machine"]
    )


def test_methods_compare_with_the_prompt_of_the_tested_data_set(
    small: BenchmarkConfig, tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert small.data is not None
    dataset = replace(load_dataset(small.data[0]), template="{} texture.")
    monkeypatch.setattr(worker_module, "load_dataset", lambda *_, **__: dataset)
    monkeypatch.setattr(worker_module, "load_backbone", lambda *_: tiny)
    config = replace(one_data_set(small, tmp_path / "sweep"), methods=("zeroshot",))
    [base, _] = benchmark("base-to-new", config).rows
    [file] = (config.output / "runs" / base["run"]).glob("test-*-base.safetensors")
    samples, names = dataset.half("base").test, dataset.half("base").classnames

    def probability(template: str) -> Tensor:
        method = build_method("zeroshot", tiny, names, template)
        return evaluate_images(method, samples).probabilities.topk(len(names)).values

    saved = Predictions.load(file).probability
    torch.testing.assert_close(saved, probability("{} texture."), atol=1e-3, rtol=0)
    assert (saved - probability("a photo of a {}.")).abs().max() > 3e-3


def test_a_second_sweep_runs_nothing(
    swept: tuple[BenchmarkConfig, SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, outcome = swept
    before = {path: path.read_bytes() for path in config.output.rglob("*") if path.is_file()}
    monkeypatch.setattr(worker_module, "load_backbone", None)
    events: list[SweepEvent] = []
    assert benchmark("base-to-new", config, on_event=events.append).rows == outcome.rows
    assert [(event.kind, event.total, event.already_done) for event in events] == [("planned", 0, 6)]
    assert {path: path.read_bytes() for path in config.output.rglob("*") if path.is_file()} == before


def test_a_missing_row_is_made_again_from_the_trained_run(
    swept: tuple[BenchmarkConfig, SweepResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = replace(swept[0], output=tmp_path / "copy")
    shutil.copytree(swept[0].output, config.output)
    path = config.output / "results.jsonl"
    rest = path.read_text().splitlines(keepends=True)
    lost = json.loads(rest.pop(5))
    path.write_text("".join(rest) + '{"protocol": "base-to-n')  # a line cut off by a crash
    monkeypatch.setattr(worker_module, "train", None)
    with pytest.warns(UserWarning, match=r"the last line of .*results\.jsonl is incomplete"):
        benchmark("base-to-new", config)
    *before, again = lines(path)
    assert len(before) == len(rest) and figures([again]) == figures([lost])
    assert again["train_seconds"] == lost["train_seconds"]  # the seconds of the training itself, not of loading it


def test_events_count_runs_and_estimate_the_time_left(small: BenchmarkConfig, tmp_path: Path) -> None:
    events: list[SweepEvent] = []
    benchmark("base-to-new", one_data_set(small, tmp_path), on_event=events.append)
    assert [event.kind for event in events] == ["planned", *3 * ["started", "finished"]]
    assert [event.ended for event in events] == [0, 0, 1, 1, 2, 2, 3]
    assert all(event.total == 3 for event in events)
    assert not any(event.seconds_left for event in events[:4])  # zero-shot: no estimate before the first training
    assert all((event.seconds_left or 0) > 0 for event in events[4:-1])
    assert events[-1].seconds_left == 0


@pytest.mark.slow
def test_several_processes_give_the_results_of_one(swept: tuple[BenchmarkConfig, SweepResult], tmp_path: Path) -> None:
    outcome = benchmark("base-to-new", replace(swept[0], output=tmp_path, jobs=2))
    assert not outcome.failures and figures(outcome.rows) == figures(swept[1].rows)


@pytest.fixture
def faulty(tmp_path: Path) -> Path:
    """A folder of images, all of them trained or tested on; one of class b cannot be read."""
    for c, name in enumerate(("a", "b")):
        for part in ("train", "test"):
            (tmp_path / "mine" / part / name).mkdir(parents=True)
            for i in range(2):
                Image.new("RGB", (32, 32), (90 * c, 40, 40 * i)).save(tmp_path / "mine" / part / name / f"{i}.png")
    (tmp_path / "mine" / "train" / "b" / "1.png").write_bytes(b"no image")
    return tmp_path / "mine"


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_failed_run_is_recorded_and_the_others_go_on(faulty: Path, tmp_path: Path, jobs: int) -> None:
    config = BenchmarkConfig(
        output=tmp_path / "out",
        data=(str(faulty),),
        backbones=("emoji",),
        methods=("coop", "zeroshot"),
        seeds=(1,),
        shots=(2,),
        epochs=1,
        workers=0,
        jobs=jobs,
    )
    events: list[SweepEvent] = []
    outcome = benchmark("few-shot", config, on_event=events.append)
    assert [row["method"] for row in outcome.rows] == ["zeroshot"]
    [failure] = lines(config.output / "failures.jsonl")
    assert outcome.failures == [failure]
    assert (failure["method"], failure["seed"]) == ("coop", 1) and "b/1.png" in failure["error"]
    assert "b/1.png" in next(event.error or "" for event in events if event.kind == "failed")
    # After the image is repaired, the same call does the missing run alone.
    Image.new("RGB", (32, 32), (200, 0, 0)).save(faulty / "train" / "b" / "1.png")
    outcome = benchmark("few-shot", config)
    assert not outcome.failures and [row["method"] for row in outcome.rows] == ["coop", "zeroshot"]
    assert len(lines(config.output / "results.jsonl")) == 2


def test_a_bug_is_recorded_with_its_traceback(
    small: BenchmarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise ZeroDivisionError("within")

    monkeypatch.setattr(worker_module, "train", broken)
    outcome = benchmark("base-to-new", one_data_set(small, tmp_path))
    assert not outcome.rows and len(outcome.failures) == 3
    assert outcome.failures[0]["error"] == "ZeroDivisionError: within"
    assert "in broken" in outcome.failures[0]["traceback"]


OTHER_VALUES: dict[str, Any] = {
    "epochs": 2,
    "batch": 16,
    "accumulate": 2,
    "lr": 0.5,
    "optimizer": "adamw",
    "weight_decay": 0.1,
    "select": "val",
    "precision": "bf16",
    "crop": 0.3,
    "levels": (0, 4095),
    "unlabeled": "emoji-food",
    "bank": 4,
    "root": Path("elsewhere"),
    "non_finite": "skip",
    "deterministic": True,
    "device": "cpu",
    "workers": 1,
    "logger": "csv",
}
"""Another value for each setting than the sweep's."""


@pytest.fixture(params=["rows and runs", "rows alone", "runs alone"])
def kept(request: pytest.FixtureRequest, swept: tuple[BenchmarkConfig, SweepResult], tmp_path: Path) -> BenchmarkConfig:
    """The sweep's config on a copy of its folder, of which a part may be gone."""
    config = swept[0]
    shutil.copytree(config.output, tmp_path / "sweep")
    if request.param == "rows alone":
        shutil.rmtree(tmp_path / "sweep" / "runs")
    if request.param == "runs alone":
        (tmp_path / "sweep" / "results.jsonl").unlink()
    return replace(config, output=tmp_path / "sweep")


@pytest.mark.parametrize("name", [field.name for field in fields(TrainSettings)])
def test_only_settings_that_cannot_change_results_may_differ(
    name: str, kept: BenchmarkConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fields declare whether they can change results."""
    monkeypatch.setattr(CoOp, "uses_unlabeled", True)  # other methods ignore `unlabeled`
    changed, kept = replace(kept, **{name: OTHER_VALUES[name]}), replace(kept, methods=("coop",))
    changed = replace(changed, methods=("coop",))
    if name in settings_that_change_results():
        with pytest.raises(InputError, match=rf"was made with .*{name} .*, not .*: choose another --output"):
            benchmark("base-to-new", changed)
    else:
        assert figures(benchmark("base-to-new", changed).rows) == figures(benchmark("base-to-new", kept).rows)


def test_zero_shot_results_depend_on_the_precision_and_on_no_recipe(kept: BenchmarkConfig) -> None:
    config = replace(kept, methods=("zeroshot",))
    rows = benchmark("base-to-new", config).rows
    assert figures(benchmark("base-to-new", replace(config, epochs=7, lr=0.5)).rows) == figures(rows)
    with pytest.raises(InputError, match="was made with precision fp32, not bf16: choose another --output"):
        benchmark("base-to-new", replace(config, precision="bf16"))


FIXED = ("epochs", "batch", "warmup")
"""Fields of the recipe that the sweep's settings decide: one epoch has no warm-up."""


@pytest.mark.parametrize("name", [field.name for field in fields(Recipe) if field.name not in FIXED])
def test_a_recipe_that_has_changed_since_is_another_run(
    name: str, swept: tuple[BenchmarkConfig, SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version may train differently under the same settings."""
    values = {
        "optimizer": "adamw",
        "schedule": "step",
        "drop_last": False,
        "crop": 0.3,
        "bank": 2,
        "unlabeled_shots": 8,
    }
    value = values.get(name, 0.25)
    monkeypatch.setattr(CoOp, "recipe", replace(CoOp.recipe, **{name: value}))
    changed = "warmup" if name == "schedule" else name  # a schedule by steps also warms up within its one epoch
    with pytest.raises(InputError, match=rf"was made with {changed} .*, not .*: choose another --output"):
        benchmark("base-to-new", swept[0])


def test_method_settings_that_have_changed_since_are_another_run(
    swept: tuple[BenchmarkConfig, SweepResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CoOp, "config", CoOpConfig(position="front"))
    with pytest.raises(InputError, match="was made with position end, not front: choose another --output"):
        benchmark("base-to-new", swept[0])


@pytest.fixture
def on_birds(small: BenchmarkConfig, tmp_path: Path) -> BenchmarkConfig:
    """CoOp and zero-shot CLIP on a folder of class folders, with a split that is drawn."""
    for label, name in enumerate(("robin", "owl", "crow", "swan")):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (40, 40), (60 * label, 20 * i, 60)).save(tmp_path / "birds" / name / f"{i}.png")
    return replace(
        small, output=tmp_path / "sweep", data=(str(tmp_path / "birds"),), methods=("zeroshot", "coop"), seeds=(1,)
    )


def lose(folder: Path, part: str) -> None:
    """Remove the rows or the runs of a sweep, or some rows."""
    results = folder / "results.jsonl"
    if part == "runs":
        shutil.rmtree(folder / "runs")
    elif part == "rows":
        results.unlink()
    elif part == "some rows":
        results.write_text("".join(results.read_text().splitlines(keepends=True)[:-1]))


@pytest.mark.parametrize("lost", ["nothing", "runs", "rows", "some rows"])
def test_results_of_training_images_that_were_replaced_are_not_reused(lost: str, on_birds: BenchmarkConfig) -> None:
    assert on_birds.data is not None
    config = replace(on_birds, methods=("coop",))
    benchmark("base-to-new", config)
    lose(config.output, lost)
    drawn = load_dataset(on_birds.data[0]).half("base").few_shot(1, 1)
    Image.new("RGB", (40, 40), "orange").save(drawn.train[0].image.name)
    with pytest.raises(InputError, match=r"was trained on other images than .*birds gives now .*another --output"):
        benchmark("base-to-new", config)


@pytest.fixture
def with_unlabeled(on_birds: BenchmarkConfig, tmp_path: Path) -> BenchmarkConfig:
    """The sweep on birds with eight images in a folder `camera` that have no labels."""
    (tmp_path / "camera").mkdir()
    for i in range(8):
        Image.new("RGB", (40, 40), (30 * i, 60, 20)).save(tmp_path / "camera" / f"{i}.png")
    return replace(on_birds, methods=("gopro",), unlabeled=str(tmp_path / "camera"), batch=4)


@pytest.mark.parametrize(("name", "lost"), [("8.png", "nothing"), ("8.png", "rows"), ("0.png", "runs")])
def test_results_of_other_images_without_labels_are_not_reused(
    name: str, lost: str, with_unlabeled: BenchmarkConfig, tmp_path: Path
) -> None:
    """An image is added to the folder, or replaced."""
    rows = benchmark("base-to-new", with_unlabeled).rows
    assert benchmark("base-to-new", with_unlabeled).rows == rows
    lose(with_unlabeled.output, lost)
    Image.new("RGB", (40, 40), "orange").save(tmp_path / "camera" / name)
    with pytest.raises(InputError, match=r"other images without labels than .*camera gives now .*another --output"):
        benchmark("base-to-new", with_unlabeled)


def test_rows_that_do_not_record_their_images_without_labels_are_not_reused(with_unlabeled: BenchmarkConfig) -> None:
    rows = benchmark("base-to-new", with_unlabeled).rows
    old = [{name: value for name, value in row.items() if name != "unlabeled_images"} for row in rows]
    (with_unlabeled.output / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in old))
    with pytest.raises(InputError, match="which did not record its images without labels: choose another --output"):
        benchmark("base-to-new", with_unlabeled)


def test_results_of_other_images_of_the_data_set_without_labels_are_not_reused(on_birds: BenchmarkConfig) -> None:
    assert on_birds.data is not None
    config = replace(on_birds, methods=("gopro[unlabeled_shots=1]",), batch=2)
    rows = benchmark("base-to-new", config).rows
    assert benchmark("base-to-new", config).rows == rows
    dataset = load_dataset(on_birds.data[0])
    given = dataset.half("base").few_shot(1, 1)
    for image in find_unlabeled(None, 1, dataset, given, 1).images:
        assert image not in {sample.image for sample in given.train}
        Image.new("RGB", (40, 40), "orange").save(image.name)
    with pytest.raises(InputError, match=r"other images without labels than .*birds gives now .*another --output"):
        benchmark("base-to-new", config)


@pytest.mark.parametrize(("method", "lost"), [("coop", "nothing"), ("coop", "rows"), ("zeroshot", "runs")])
def test_results_of_a_split_that_was_drawn_again_are_not_reused(
    method: str, lost: str, on_birds: BenchmarkConfig
) -> None:
    assert on_birds.data is not None
    config = replace(on_birds, methods=(method,))
    benchmark("base-to-new", config)
    lose(config.output, lost)
    folder = Path(on_birds.data[0])
    for name in ("robin", "owl", "crow", "swan"):
        Image.new("RGB", (40, 40), "orange").save(folder / name / "00.png")
    (folder / "split_gopro.json").unlink()
    with pytest.raises(InputError, match=r"other (test )?images than .*birds (has|gives) now .*another --output"):
        benchmark("base-to-new", config)


def test_other_images_of_a_data_set_do_not_matter(on_birds: BenchmarkConfig) -> None:
    assert on_birds.data is not None
    before = benchmark("base-to-new", on_birds)
    dataset = load_dataset(on_birds.data[0])
    used = {sample.image for sample in (*dataset.half("base").few_shot(1, 1).train, *dataset.test)}
    for sample in dataset.train:
        if sample.image not in used:
            Image.new("RGB", (40, 40), "orange").save(sample.image.name)
    assert benchmark("base-to-new", on_birds).rows == before.rows


def test_results_of_another_folder_of_the_same_name_are_not_reused(faulty: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32)).save(faulty / "train" / "b" / "1.png")
    config = BenchmarkConfig(
        output=tmp_path / "out", data=(str(faulty),), methods=("zeroshot",), workers=0, backbones=("emoji",)
    )
    benchmark("few-shot", config)
    shutil.copytree(faulty, tmp_path / "other" / "mine")
    with pytest.raises(InputError, match=r"was run on .*choose another --output"):
        benchmark("few-shot", replace(config, data=(str(tmp_path / "other" / "mine"),)))


def test_two_sweeps_in_one_folder_are_refused(
    small: BenchmarkConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gopro.training.folder_lock.LOCK_WAIT_SECONDS", 0)
    with (
        lock_folder(tmp_path, ()),
        pytest.raises(InputError, match=f"is in use by process {os.getpid()} on .*another folder"),
    ):
        benchmark("base-to-new", replace(small, output=tmp_path))


def test_a_foreign_line_in_results_is_named(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(InputError, match=r"results\.jsonl, line 1"):
        Results(tmp_path / "results.jsonl")


def test_a_broken_predictions_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "test-x-all.safetensors").write_bytes(b"0" * 50)
    with pytest.raises(InputError, match=r"test-x-all\.safetensors does not hold predictions"):
        Predictions.load(tmp_path / "test-x-all.safetensors")


def long_sweep(folder: Path) -> TransferConfig:
    """Two runs of some seconds each, so that they can be killed in the middle; tests choose the output folder."""
    return TransferConfig(
        output=Path(),
        source=own_images(folder / "pets"),
        targets=(own_images(folder / "cars"),),
        backbones=("emoji",),
        methods=("coop",),
        seeds=(1, 2),
        shots=(2,),
        epochs=30,
        batch=4,
        workers=0,
    )


def wait_for_first_epoch(folder: Path, deadline: float) -> None:
    """Wait until a run has saved its first epoch."""
    while not list(folder.glob("runs/*/resume.safetensors")):
        assert time.monotonic() < deadline, "no run started"
        time.sleep(0.05)


def descendants(pid: int) -> list[int]:
    """Return the ids of all child processes, theirs included, from /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    children = [child for child, parent in parents.items() if parent == pid]
    return children + [grandchild for child in children for grandchild in descendants(child)]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes by /proc, which only Linux has")
@pytest.mark.slow
def test_killed_workers_and_a_killed_sweep_lose_nothing(tmp_path: Path) -> None:
    """After kill -9 of a worker its run is started again; after kill -9 of the sweep its workers end and a second call
    finishes."""
    config = long_sweep(tmp_path)
    whole = benchmark("cross-dataset", replace(config, output=tmp_path / "whole"))
    code = f"""
        from pathlib import Path
        from gopro import TransferConfig, benchmark
        if __name__ == "__main__":
            config = {replace(config, output=tmp_path / "cut", jobs=2)!r}
            print(len(benchmark("cross-dataset", config).failures), flush=True)
    """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(code).replace("PosixPath", "Path"))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    first = subprocess.Popen([sys.executable, script], env=environment, stdout=subprocess.PIPE)
    wait_for_first_epoch(tmp_path / "cut", time.monotonic() + 120)
    workers = [pid for pid in descendants(first.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    time.sleep(1)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers[1:]):
        assert time.monotonic() < deadline, "a worker outlived its sweep"
        time.sleep(0.05)
    second = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert second.stdout == "0\n"
    assert figures(lines(tmp_path / "cut" / "results.jsonl")) == figures(whole.rows)
    for run in (tmp_path / "whole" / "runs").iterdir():
        cut = tmp_path / "cut" / "runs" / run.name
        assert (cut / LEARNED).read_bytes() == (run / LEARNED).read_bytes() and (cut / CONFIG).exists()


@pytest.mark.slow
def test_a_run_that_kills_its_process_twice_fails_and_the_others_go_on(small: BenchmarkConfig, tmp_path: Path) -> None:
    config = replace(one_data_set(small, tmp_path / "out"), seeds=(1,), jobs=2)
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import json, os
            from pathlib import Path
            from gopro.benchmark import worker
            from gopro import BenchmarkConfig, benchmark
            train = worker.train
            def train_or_die(config, **kwargs):
                if config.method == "coop":
                    os._exit(3)
                return train(config, **kwargs)
            worker.train = train_or_die
            if __name__ == "__main__":
                outcome = benchmark("base-to-new", {config!r})
                print(json.dumps([len(outcome.rows), [failure["error"] for failure in outcome.failures]]))
            """
        ).replace("PosixPath", "Path")
    )
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert json.loads(process.stdout) == [2, ["its process ended 2 times: with exit code 3"]]
