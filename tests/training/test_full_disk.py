"""Small disks that fill up and disks that cannot be written: one line names the file, and nothing computed is lost."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gopro.runs.run import CONFIG
from tests.support.killable_command import difference, refused_in_one_line, run, write_images

pytestmark = pytest.mark.slow

TRAIN = "--shots 2 --batch 4 --workers 0 --method gopro --epochs 6 --bank 2 --backbone emoji"
BENCHMARK = "--methods zeroshot coop --seeds 1 --shots 1 --epochs 2 --batch 4 --workers 0 --backbones emoji"


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[Path]:
    """A disk in memory of so many KiB, mounted at `folder`; skips where nobody may mount."""
    folder.mkdir()
    try:
        mount = ["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", folder]
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("a small disk needs Linux, and root to mount it")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True, capture_output=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True, capture_output=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"), classes=4)  # two base and two new ones


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on a disk with enough space."""
    folder = tmp_path_factory.mktemp("whole")
    command = ["train", "--data", str(data), *TRAIN.split(), "--output", str(folder / "run")]
    assert run(command, folder, folder / "cache").code == 0
    return folder / "run"


def test_training_resumes_when_there_is_room_again(trial: int, data: Path, whole: Path, tmp_path: Path) -> None:
    size = 4 * Random(f"disk {trial}").randint(1, 60)
    with small_disk(tmp_path / "disk", size) as disk:
        command = ["train", "--data", str(data), *TRAIN.split(), "--output", str(disk / "run")]
        ended = run(command, tmp_path, tmp_path / "cache")
        if ended.code != 0:
            assert refused_in_one_line(ended) and "No space left" in ended.output, ended
            remount(disk, "size=16m")
            resume = ["train", "--resume", str(disk / "run")]
            ended = run(resume if (disk / "run" / CONFIG).exists() else command, tmp_path, tmp_path / "cache")
        assert ended.code == 0 and difference(disk / "run", whole) is None, ended


def test_a_feature_store_without_room_is_a_warning(data: Path, whole: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 8) as disk:
        command = ["train", "--data", str(data), *TRAIN.split(), "--output", str(tmp_path / "run")]
        ended = run(command, tmp_path, disk / "cache")
    assert ended.code == 0 and "features are not cached" in ended.output, ended
    assert difference(tmp_path / "run", whole) is None


def test_a_benchmark_resumes_when_there_is_room_again(trial: int, data: Path, tmp_path: Path) -> None:
    command = ["benchmark", "base-to-new", "--data", str(data), *BENCHMARK.split(), "--output"]
    assert run([*command, str(tmp_path / "whole")], tmp_path, tmp_path / "cache").code == 0
    with small_disk(tmp_path / "disk", 8 * Random(f"benchmark {trial}").randint(1, 8)) as disk:
        ended = run([*command, str(disk / "out")], tmp_path, tmp_path / "cache")
        if ended.code != 0:
            assert "Traceback" not in ended.output and "No space left" in ended.output, ended
            remount(disk, "size=16m")
            ended = run([*command, str(disk / "out")], tmp_path, tmp_path / "cache")
        assert ended.code == 0 and rows(disk / "out") == rows(tmp_path / "whole"), ended


def test_a_read_only_folder_is_named(data: Path, tmp_path: Path) -> None:
    train = ["train", "--data", str(data), *TRAIN.split(), "--output"]
    benchmark = ["benchmark", "base-to-new", "--data", "emoji-activities", "--output"]
    with small_disk(tmp_path / "disk", 4096) as disk:
        remount(disk, "ro")
        for command in ([*train, str(disk / "run")], [*benchmark, str(disk / "benchmark")]):
            ended = run(command, tmp_path, tmp_path / "cache")
            assert refused_in_one_line(ended), ended
            assert "Read-only file system" in ended.output and str(disk) in ended.output


def rows(folder: Path) -> list[dict[str, Any]]:
    """The results in one order, without what time and machine decide."""
    rows = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    return sorted(
        ({key: row[key] for key in row if "seconds" not in key and "memory" not in key} for row in rows), key=str
    )
