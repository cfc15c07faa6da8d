"""Runs survive interruptions: full disks, second processes, damaged files."""

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.files import append, write_atomically
from gopro.methods.recipe import Training
from gopro.methods.registry import METHODS
from gopro.runs.calibration import CALIBRATION
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.runs.results import Results, append_json, whole_lines
from gopro.runs.run import CONFIG, LEARNED
from gopro.runs.training_images import TRAINING_IMAGES
from gopro.training.folder_lock import LOCK, leftovers, lock_folder
from gopro.training.resume_state import LOG, RESUME
from gopro.training.train import resume, train
from tests.support.interrupt import Cut, cut_in
from tests.support.killable_command import difference
from tests.training.test_loop import config, same_tensors


def interrupted_run(folder: Path, tiny: Backbone, epoch: int = 2, **changes: object) -> TrainConfig:
    """Train until the run is interrupted in an epoch."""
    settings = config(folder, **changes)
    with pytest.raises(Cut):
        train(settings, backbone=tiny, on_step=cut_in(epoch))
    return settings


@pytest.mark.parametrize("method", [name for name, kind in METHODS.items() if Training.STEPS in kind.trained_by])
def test_every_method_resumes_to_the_same_bits(method: str, tmp_path: Path, tiny: Backbone) -> None:
    settings = {"method": method, "epochs": 2, "select": "val", "batch": 64, "bank": 2}
    train(config(tmp_path / "uncut", **settings), backbone=tiny)
    interrupted_run(tmp_path / "cut", tiny, 1, **settings)
    resume(tmp_path / "cut", backbone=tiny)
    assert same_tensors(tmp_path / "uncut", tmp_path / "cut")


# The run's folder


def test_files_left_by_a_kill_before_the_run_began_are_ignored(tmp_path: Path, tiny: Backbone) -> None:
    folder = tmp_path / "run"
    with lock_folder(folder, ()):
        (folder / f".{CONFIG}.123").write_text("{")
    with pytest.raises(InputError, match="no training to resume; start one with gopro train"):
        resume(folder, backbone=tiny)
    train(config(folder, epochs=1), backbone=tiny)
    expected = {CONFIG, TRAINING_IMAGES, CALIBRATION, "cost.json", LEARNED, LOG, LOCK}
    assert {path.name for path in folder.iterdir()} == expected


def test_only_temporary_files_of_the_lock_holder_are_deleted(tmp_path: Path) -> None:
    for name in (f".{LEARNED}.77", f".{LEARNED}.tmp", ".eval-x.json.78", LEARNED, ".gitignore", ".config.json.5"):
        (tmp_path / name).touch()
    assert {path.name for path in leftovers(tmp_path, (LEARNED, CONFIG))} == {f".{LEARNED}.77", ".config.json.5"}
    (tmp_path / "runs" / "a").mkdir(parents=True)
    (tmp_path / "runs" / "a" / ".test-x.safetensors.9").touch()
    with lock_folder(tmp_path, ("runs/*/test-*.safetensors",)):
        assert not list((tmp_path / "runs" / "a").iterdir()) and (tmp_path / ".config.json.5").exists()


def test_a_run_killed_before_deleting_its_resume_file_is_finished(tmp_path: Path, tiny: Backbone) -> None:
    """It was killed between saving its weights and deleting its resume file."""
    folder = tmp_path / "run"
    interrupted_run(folder, tiny)
    kept = (folder / RESUME).read_bytes()
    resume(folder, backbone=tiny)
    learned = (folder / LEARNED).read_bytes()
    (folder / RESUME).write_bytes(kept)
    (folder / LEARNED).write_bytes(learned[:-9])
    with pytest.raises(InputError, match=r"learned\.safetensors does not hold .*: remove it, and gopro train --resume"):
        resume(folder, backbone=tiny)
    (folder / LEARNED).write_bytes(learned)
    resume(folder, backbone=tiny)
    assert (folder / LEARNED).read_bytes() == learned and not (folder / RESUME).exists()
    with pytest.raises(InputError, match="finished"):
        resume(folder, backbone=tiny)


def test_the_lock_refuses_a_second_process_and_ends_with_the_first(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("gopro.training.folder_lock.LOCK_WAIT_SECONDS", 0)
    code = "import sys, time; from pathlib import Path; from gopro.training.folder_lock import lock_folder\n"
    code += "with lock_folder(Path(sys.argv[1]), ()): print('in', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as first:
        assert first.stdout is not None and first.stdout.readline() == b"in\n"
        with pytest.raises(InputError, match=f"is in use by process {first.pid} on"), lock_folder(tmp_path, ()):
            pass
        first.kill()
    with lock_folder(tmp_path, ()):
        assert (tmp_path / LOCK).read_text().startswith(f"process {os.getpid()} on ")


def test_a_run_in_progress_is_locked(tmp_path: Path, tiny: Backbone, monkeypatch) -> None:
    monkeypatch.setattr("gopro.training.folder_lock.LOCK_WAIT_SECONDS", 0)
    settings = interrupted_run(tmp_path / "run", tiny)
    with lock_folder(tmp_path / "run", ()):
        with pytest.raises(InputError, match="in use by"):
            resume(tmp_path / "run", backbone=tiny)
        with pytest.raises(InputError, match="not empty: resume it with"):
            train(settings, backbone=tiny)


def test_impossible_output_folders_are_named(tmp_path: Path, tiny: Backbone) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file is not empty: choose another"):
        train(config(tmp_path / "file"), backbone=tiny)
    with pytest.raises(InputError, match=r"file/run cannot be written to: Not a directory"):
        train(config(tmp_path / "file" / "run"), backbone=tiny)
    with pytest.raises(InputError, match=r"nowhere is not the folder of a run"):
        resume(tmp_path / "nowhere", backbone=tiny)
    assert not (tmp_path / "nowhere").exists()


# Files in it


def test_resume_truncates_the_log_to_the_last_finished_epoch(tmp_path: Path, tiny: Backbone) -> None:
    settings = {"method": "coop", "epochs": 12, "batch": 64}
    train(config(tmp_path / "whole", **settings), backbone=tiny)
    interrupted_run(tmp_path / "run", tiny, 11, **settings)
    with (tmp_path / "run" / LOG).open("a") as file:
        file.write("11,12,0.00")  # half a row, whose start reads as an epoch that is done
    resume(tmp_path / "run", backbone=tiny)
    assert difference(tmp_path / "run", tmp_path / "whole") is None


@pytest.mark.parametrize("damage", [lambda log: log[:40], lambda log: b"", lambda log: log.replace(b"1", b"2")])
def test_a_changed_log_is_refused(damage, tmp_path: Path, tiny: Backbone) -> None:
    interrupted_run(tmp_path / "run", tiny)
    log = (tmp_path / "run" / LOG).read_bytes()
    (tmp_path / "run" / LOG).write_bytes(damage(log))
    with pytest.raises(InputError, match=r"log\.csv has changed since the last finished epoch.*remove it to resume"):
        resume(tmp_path / "run", backbone=tiny)
    (tmp_path / "run" / LOG).unlink()
    resume(tmp_path / "run", backbone=tiny)
    assert [line.split(",")[0] for line in (tmp_path / "run" / LOG).read_text().splitlines()][:2] == ["epoch", "2"]


def test_a_changed_number_of_training_images_is_refused(tmp_path: Path, tiny: Backbone) -> None:
    interrupted_run(tmp_path / "run", tiny)
    state = tmp_path / "run" / RESUME
    tensors = load_file(state)
    with safe_open(state, "pt") as file:
        metadata = file.metadata()
    tensors["pictures"] = torch.cat([tensors["pictures"], tensors["pictures"][:1]])
    save_file(tensors, state, metadata)
    with pytest.raises(InputError, match=r"began with (\d+) images and now has .* or remove .*resume\.safetensors"):
        resume(tmp_path / "run", backbone=tiny)


def test_another_runs_resume_file_is_refused(tmp_path: Path, tiny: Backbone) -> None:
    """It has the same shapes and another seed: only the run's config distinguishes the two."""
    interrupted_run(tmp_path / "run", tiny)
    interrupted_run(tmp_path / "other", tiny, seed=2)
    kept = (tmp_path / "run" / RESUME).read_bytes()
    shutil.copy(tmp_path / "other" / RESUME, tmp_path / "run")
    with pytest.raises(InputError, match=r"resume\.safetensors cannot be resumed from \(it does not belong to the run"):
        resume(tmp_path / "run", backbone=tiny)
    save_file(load_file(tmp_path / "other" / RESUME), tmp_path / "run" / RESUME)  # without what it says of itself
    with pytest.raises(InputError, match=r"resume\.safetensors cannot be resumed from"):
        resume(tmp_path / "run", backbone=tiny)
    (tmp_path / "run" / RESUME).write_bytes(kept)
    resume(tmp_path / "run", backbone=tiny)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": {}}', '{"config": []}', "\udcff"])
def test_a_broken_config_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"config\.json is not the config of a run .*: put it back, or train again"):
        resume(tmp_path)
    (tmp_path / CONFIG).unlink()
    (tmp_path / CONFIG).mkdir()
    with pytest.raises(InputError, match=r"has no config\.json"):
        load_run(tmp_path)


# Disks


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """Keep files of this process from growing beyond `size` bytes, as on a disk that is nearly full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_failed_write_leaves_the_file_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    append(path, b" and")
    with files_up_to(1000):
        for attempt in (write_atomically, append):
            with pytest.raises(InputError, match=f"file cannot be written: {os.strerror(errno.EFBIG)}"):
                attempt(path, bytes(2000))
    assert path.read_bytes() == b"old and" and [path] == list(tmp_path.iterdir())


@pytest.mark.parametrize("size", [300, 2500, 3500])
def test_a_run_resumes_after_a_full_disk(size: int, tmp_path: Path, tiny: Backbone) -> None:
    """The disk is too small for the config, the state or the log; later there is room, and the bits are those of a run
    that always had it."""
    settings = {"method": "coop", "epochs": 20, "batch": 8}
    train(config(tmp_path / "whole", **settings), backbone=tiny)
    name = {300: CONFIG, 2500: RESUME, 3500: LOG}[size]
    with files_up_to(size), pytest.raises(InputError, match=f"{name} cannot be written: "):
        train(config(tmp_path / "run", **settings), backbone=tiny)
    assert not [path for path in (tmp_path / "run").iterdir() if path.name.startswith(".") and path.name != LOCK]
    if (tmp_path / "run" / CONFIG).exists():
        resume(tmp_path / "run", backbone=tiny)
    else:
        train(config(tmp_path / "run", **settings), backbone=tiny)
    assert difference(tmp_path / "run", tmp_path / "whole") is None


def test_files_are_synced_before_and_folders_after_the_rename(tmp_path: Path, monkeypatch) -> None:
    did: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noted_fsync(descriptor: int) -> None:
        did.append("folder" if os.path.isdir(f"/dev/fd/{descriptor}") else "file")
        fsync(descriptor)

    def noted_replace(self: Path, target: Path) -> Path:
        did.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    write_atomically(tmp_path / "a", b"a")
    assert did == ["file", "rename", "folder"]
    append(tmp_path / "b", b"b")
    append(tmp_path / "b", b"b")
    assert did[3:] == ["file", "folder", "file"]


# Results


def row(method: str) -> dict[str, object]:
    named = {"protocol": "few-shot", "source": "a", "data": "a", "backbone": "b", "classes": "all"}
    return {**named, "method": method, "shots": 1, "seed": 1, "accuracy": 50.0, "\u2028": "é\u2028"}


def test_an_incomplete_last_result_is_dropped_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    for method in ("coop", "gopro"):
        append_json(path, row(method))
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for size in range(first, len(whole)):
        path.write_bytes(whole[:size])
        if size > first:
            with pytest.warns(UserWarning, match=r"the last line of .*results\.jsonl is incomplete"):
                results = Results(path)
        else:
            results = Results(path)
        assert [r["method"] for r in results.rows] == ["coop"] and path.read_bytes() == whole[:size]
        results.add(row("gopro"))
        assert path.read_bytes() == whole
    assert [r["method"] for r in Results(path).rows] == ["coop", "gopro"] and len(whole_lines(path)) == 2


def test_a_result_that_does_not_fit_on_the_disk_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    append_json(path, row("coop"))
    whole = path.read_bytes()
    with files_up_to(len(whole) + 20), pytest.raises(InputError, match=r"results\.jsonl cannot be written"):
        append_json(path, row("gopro"))
    assert path.read_bytes() == whole
