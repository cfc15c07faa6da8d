"""The training loop: its schedule, the files of a run, and resuming an interrupted run."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from gopro.clip.backbone import Backbone, load_backbone
from gopro.errors import InputError
from gopro.inference.evaluate import EncodedSamples, evaluate
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.runs.run import LEARNED
from gopro.training.progress import Step
from gopro.training.resume_state import RESUME
from gopro.training.train import resume, train
from tests.support.interrupt import Cut, cut_in

CONFIG = TrainConfig(
    data="emoji-activities", output=Path(), method="gopro", shots=1, epochs=3, batch=32, classes="base", workers=0
)


def config(folder: Path, **changes: object) -> TrainConfig:
    return replace(CONFIG, output=folder, **changes)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "whole"
    train(config(folder), backbone=tiny)
    return folder


def same_tensors(a: Path, b: Path) -> bool:
    left, right = load_file(a / LEARNED), load_file(b / LEARNED)
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


def test_a_run_writes_its_config_tensors_and_log(whole: Path) -> None:
    content = json.loads((whole / "config.json").read_text())
    assert content["data"] == "emoji-activities:twemoji" and content["config"]["shots"] == 1
    assert {"context", "rho", "maps.style.0.0.weight"} <= set(load_file(whole / LEARNED))
    with (whole / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == list(range(1, 1 + 3 * math.ceil(len(content["classnames"]) / 32)))
    for row in rows:
        terms = [float(row[term]) for term in ("ce", "sem", "con", "anchor")]
        assert float(row["total"]) == pytest.approx(sum(terms), rel=1e-4)
    assert not (whole / RESUME).exists()


@pytest.mark.parametrize("method", ["coop", "maple", "gopro[con=0,sem=0]"])
def test_accumulated_batches_equal_larger_batches(method: str, tmp_path: Path, tiny: Backbone) -> None:
    """Two batches of 43 give the step of one of 86 if no loss compares images with one another."""

    def learned(folder: str, **changes: int) -> dict[str, torch.Tensor]:
        settings = config(tmp_path / folder, method=method, shots=2, lr=0.1, optimizer="sgd", **changes)
        return load_file(train(settings, backbone=tiny).folder / LEARNED)

    a, b, apart = learned("a", batch=86), learned("b", batch=43, accumulate=2), learned("c", batch=43)
    for key in filter(lambda key: a[key].numel(), a):
        moved = (a[key] - apart[key]).abs().max().item()
        torch.testing.assert_close(a[key], b[key], atol=max(1e-7, 1e-2 * moved), rtol=1e-5)
    assert any(not torch.allclose(a[key], apart[key], atol=1e-4, rtol=1e-3) for key in a)


def test_training_lowers_the_loss(tmp_path: Path, tiny: Backbone) -> None:
    run = train(config(tmp_path / "run", method="coop", epochs=12, lr=0.05), backbone=tiny)
    with (run.folder / "log.csv").open() as file:
        losses = [float(row["total"]) for row in csv.DictReader(file)]
    assert sum(losses[-2:]) < sum(losses[:2])


def test_the_same_config_gives_the_same_bits_and_another_seed_does_not(
    whole: Path, tmp_path: Path, tiny: Backbone
) -> None:
    train(config(tmp_path / "again", workers=1), backbone=tiny)
    assert same_tensors(whole, tmp_path / "again")
    train(config(tmp_path / "other", seed=2), backbone=tiny)
    assert not same_tensors(whole, tmp_path / "other")


@pytest.mark.parametrize(
    ("method", "optimizer"),
    # PromptSRC averages over all epochs, those before the interruption included; the second has the largest weight
    [("gopro", "sgd"), ("gopro", "adamw"), ("maple", "sgd"), ("promptsrc[gpa_mean=2]", "sgd")],
)
def test_resume_gives_the_same_bits(method: str, optimizer: str, tmp_path: Path, tiny: Backbone) -> None:
    train(config(tmp_path / "uncut", method=method, optimizer=optimizer), backbone=tiny)

    with pytest.raises(Cut):
        train(config(tmp_path / "cut", method=method, optimizer=optimizer), backbone=tiny, on_step=cut_in(2))
    with pytest.raises(InputError, match="not finished"):
        load_run(tmp_path / "cut", backbone=tiny)
    steps: list[Step] = []
    resume(tmp_path / "cut", backbone=tiny, on_step=steps.append)
    assert {step.epoch for step in steps} == {2}
    assert same_tensors(tmp_path / "uncut", tmp_path / "cut")
    without_seconds = [
        [line.rsplit(",", 1)[0] for line in (tmp_path / name / "log.csv").read_text().splitlines()]
        for name in ("uncut", "cut")
    ]
    assert without_seconds[0] == without_seconds[1]


@pytest.mark.parametrize(("data", "backbone"), [("emoji-activities", "emoji"), ("photos", "photo")])
def test_resume_after_kill_9_gives_the_same_bits(data: str, backbone: str, tmp_path: Path) -> None:
    """The process is killed after the first epoch was saved."""
    arguments = ["--data", data, "--method", "coop", "--shots", "1", "--epochs", "8", "--batch", "16"]
    arguments += ["--workers", "0", "--output", str(tmp_path / "a")]
    command = [sys.executable, "-m", "gopro.cli", "train", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    saved = tmp_path / "a" / RESUME
    deadline = time.monotonic() + 120
    while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "the run ended before it could be killed"
    assert saved.exists() and not (tmp_path / "a" / LEARNED).exists()
    resume(tmp_path / "a")
    changes = {"data": data, "backbone": backbone, "classes": "all"}
    train(config(tmp_path / "b", method="coop", epochs=8, batch=16, **changes))
    assert same_tensors(tmp_path / "a", tmp_path / "b")


def test_a_finished_run_is_not_resumed(whole: Path, tiny: Backbone) -> None:
    with pytest.raises(InputError, match="finished"):
        resume(whole, backbone=tiny)


def test_a_folder_with_a_run_is_refused_and_unchanged(whole: Path, tiny: Backbone) -> None:
    before = (whole / LEARNED).read_bytes()
    with pytest.raises(InputError, match="not empty"):
        train(config(whole), backbone=tiny)
    assert (whole / LEARNED).read_bytes() == before


def test_a_damaged_resume_file_is_named(tmp_path: Path, tiny: Backbone) -> None:
    with pytest.raises(Cut):
        train(config(tmp_path / "run"), backbone=tiny, on_step=cut_in(1))
    (tmp_path / "run" / RESUME).write_bytes(b"not tensors")
    with pytest.raises(InputError, match=r"resume\.safetensors cannot be resumed from"):
        resume(tmp_path / "run", backbone=tiny)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, tiny: Backbone) -> None:
    with pytest.raises(InputError, match=r"not finite at step \d+ .*--lr"):
        train(config(tmp_path / "run", lr=1e30), backbone=tiny)
    assert not (tmp_path / "run" / LEARNED).exists()


def test_impossible_settings_are_refused_before_anything_is_written(tmp_path: Path, tiny: Backbone) -> None:
    for changes in ({"epochs": 0}, {"batch": -1}, {"lr": 0.0}, {"shots": 0}, {"method": "none"}):
        with pytest.raises(InputError, match=r"^[^\n]*$"):
            train(config(tmp_path / "run", **changes), backbone=tiny)
        assert not (tmp_path / "run").exists()


def test_a_run_of_another_backbone_is_refused(whole: Path) -> None:
    with pytest.raises(InputError, match="other weights of tiny"):
        load_run(whole, backbone=load_backbone("emoji"))


def test_a_truncated_learned_file_is_named(whole: Path, tmp_path: Path, tiny: Backbone) -> None:
    for name in ("config.json", LEARNED):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    (tmp_path / LEARNED).write_bytes((whole / LEARNED).read_bytes()[:-100])
    with pytest.raises(InputError, match=r"learned\.safetensors does not hold"):
        load_run(tmp_path, backbone=tiny)


def test_profiling_writes_a_trace_and_changes_no_result(tmp_path: Path, tiny: Backbone) -> None:
    train(config(tmp_path / "plain", method="coop", epochs=6), backbone=tiny)
    train(config(tmp_path / "profiled", method="coop", epochs=6, profile=True), backbone=tiny)
    assert same_tensors(tmp_path / "plain", tmp_path / "profiled")
    names = [event.get("name") for event in json.loads((tmp_path / "profiled/trace.json").read_text())["traceEvents"]]
    assert {name for name in names if str(name).startswith("ProfilerStep")} == {f"ProfilerStep#{i}" for i in (2, 3, 4)}
    assert {"aten::addmm", "mkldnn::_linear_pointwise"} & set(names) and not (tmp_path / "plain/trace.json").exists()


def test_profiling_without_enough_steps_warns(tmp_path: Path, tiny: Backbone) -> None:
    with pytest.raises(InputError, match=r"tip-adapter is not trained in steps"):
        train(config(tmp_path / "run", method="tip-adapter", epochs=None, profile=True), backbone=tiny)
    with pytest.warns(UserWarning, match=r"fewer than 3"):
        train(config(tmp_path / "run", method="coop", epochs=1, profile=True), backbone=tiny)


def test_evaluation_agrees_with_counting_by_hand(tiny: Backbone) -> None:
    method = build_method("zeroshot", tiny, ["fox", "owl", "dog", "cat"], "a photo of a {}.")
    encoded = tiny.encode(torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0)))
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    result = evaluate(method, EncodedSamples(encoded, labels, 0.0), batch=3)
    guesses = method.logits(encoded).argmax(-1)
    right = [int(g == t) for g, t in zip(guesses.tolist(), labels.tolist(), strict=True)]
    by_class = [sum(right[:3]) / 3, sum(right[3:5]) / 2, sum(right[5:]) / 2]
    assert result.accuracy == pytest.approx(100 * sum(right) / 7)
    assert result.macro_accuracy == pytest.approx(100 * sum(by_class) / 3)
    assert result.per_class == (*(pytest.approx(100 * a) for a in by_class), None)
    assert result.n == 7 and result.probabilities.shape == (7, 4)
