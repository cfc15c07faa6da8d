"""`gopro train` killed (SIGKILL) at random moments and resumed: it ends as a run that nobody disturbed, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from gopro.runs.run import CONFIG, LEARNED
from tests.support.commands import CommandResult
from tests.support.killable_command import KillableCommand, difference, refused_in_one_line, run, write_images

pytestmark = pytest.mark.slow

RUNS = {
    "coop": "--method coop --epochs 12 --workers 0",
    "gopro, 2 workers": "--method gopro --epochs 6 --workers 2",
    "gopro, cached views": "--method gopro --epochs 6 --bank 3 --workers 0",
    "coop, best epoch": "--method coop --epochs 8 --select val --workers 0",
    "maple, 2 workers": "--method maple --epochs 5 --workers 2",
    "tip-adapter-f": "--method tip-adapter-f --epochs 8 --workers 0",
}

Kill = Callable[[KillableCommand, Path], bool]
"""Waits for its moment and kills the command; False if the command had ended before that."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("images"))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_killed_at_random_moments(name: str, trial: int, data: Path, tmp_path: Path) -> None:
    draw = Random(f"{name} {trial}")
    arguments = ["--data", str(data), "--backbone", "emoji", "--shots", "2", "--batch", "4", *RUNS[name].split()]
    whole, seconds = undisturbed(arguments, tmp_path / "whole")
    kills = [after(draw.uniform(0, seconds)) for _ in range(draw.randint(1, 3))]
    interrupted(arguments, tmp_path / "killed", whole, kills)


def test_a_run_killed_while_it_writes_a_file(trial: int, data: Path, tmp_path: Path) -> None:
    arguments = [
        "--data",
        str(data),
        "--backbone",
        "emoji",
        "--shots",
        "2",
        "--batch",
        "12",
        "--method",
        "coop",
        "--epochs",
        "20",
    ]
    arguments += ["--workers", "0"]
    whole, _ = undisturbed(arguments, tmp_path / "whole")
    draw = Random(f"writing {trial}")
    interrupted(arguments, tmp_path / "killed", whole, [while_writing(draw.randrange(12)) for _ in range(2)])


def test_a_run_killed_while_python_starts(trial: int, data: Path, tmp_path: Path) -> None:
    arguments = ["--data", str(data), "--backbone", "emoji", "--shots", "2", "--batch", "4", *RUNS["coop"].split()]
    whole, _ = undisturbed(arguments, tmp_path / "whole")
    folder = tmp_path / "run"
    command = ["train", *arguments, "--output", str(folder)]
    environment = {**os.environ, "GOPRO_CACHE": str(tmp_path / "cache")}
    process = subprocess.Popen([sys.executable, "-m", "gopro.cli", *command], env=environment, stderr=subprocess.PIPE)
    time.sleep(Random(f"start {trial}").uniform(0, 8))
    process.kill()
    process.communicate()
    if (folder / CONFIG).exists():
        command = ["train", "--resume", str(folder)]
    assert_as_undisturbed(folder, whole, run(command, tmp_path, tmp_path / "cache"))


def undisturbed(arguments: list[str], folder: Path) -> tuple[Path, float]:
    """Train the run that others are compared with and return its folder and seconds."""
    folder.mkdir()
    start = time.monotonic()
    ended = run(["train", *arguments, "--output", str(folder / "run")], folder, folder / "cache")
    assert ended.code == 0, ended
    return folder / "run", time.monotonic() - start


def interrupted(arguments: list[str], folder: Path, whole: Path, kills: list[Kill]) -> None:
    """Kill and resume a run, and compare it with the undisturbed one."""
    folder.mkdir()
    output, cache = folder / "run", folder / "cache"
    start = ["train", *arguments, "--output", str(output)]
    command = start
    for kill in kills:
        process = KillableCommand(command, folder, cache)
        if not kill(process, output):
            return assert_as_undisturbed(output, whole, process.wait())
        command = ["train", "--resume", str(output)]
        if not (output / CONFIG).exists():
            ended = run(command, folder, cache)
            assert refused_in_one_line(ended), f"there was nothing to resume: {ended}"
            command = start
    return assert_as_undisturbed(output, whole, run(command, folder, cache))


def assert_as_undisturbed(output: Path, whole: Path, ended: CommandResult) -> None:
    """Check the end of a run; one that was killed after its last act says that it is finished."""
    assert ended.code == 0 or (refused_in_one_line(ended) and "is finished" in ended.output), ended
    assert difference(output, whole) is None


def after(seconds: float) -> Kill:
    """Kill after so long."""

    def kill(command: KillableCommand, output: Path) -> bool:
        if command.ends_within(seconds):
            return False
        command.kill()
        return True

    return kill


def while_writing(skip: int) -> Kill:
    """Kill while a file is half written, after `skip` others were."""

    def kill(command: KillableCommand, output: Path) -> bool:
        left, before = skip, False
        while not command.ends_within(0):
            now = half_written(output)
            if now and not before:
                left -= 1
            if now and left < 0:
                command.kill()
                return True
            before = now
        return False

    return kill


def half_written(folder: Path) -> bool:
    """Return whether a file beside its final name stands in the run's folder."""
    try:
        return any(name.startswith(".") and name[-1].isdecimal() for name in os.listdir(folder))
    except OSError:  # there is no folder yet
        return False


# Two processes

TWO = "--data emoji-activities --method coop --shots 2 --epochs 6 --batch 16 --classes base --workers 0 --device cpu"


@pytest.fixture(scope="module")
def whole_of_two(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """A run of two processes, and its seconds."""
    folder, start = tmp_path_factory.mktemp("two") / "run", time.monotonic()
    subprocess.run(gopro_train(*TWO.split(), "--output", str(folder), "--devices", "2"), check=True)
    return folder, time.monotonic() - start


@pytest.mark.parametrize("by", ["--devices", "torchrun"])
def test_one_of_two_processes_killed(by: str, trial: int, whole_of_two: tuple[Path, float], tmp_path: Path) -> None:
    """Kill the process that the user started, or one of torchrun's: the other ends, and the run resumes."""
    whole, seconds = whole_of_two
    folder, draw = tmp_path / "run", Random(f"{by} {trial}")
    arguments = [*TWO.split(), "--output", str(folder)]
    if by == "torchrun":
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
        command += ["-m", "gopro.cli", "train", *arguments]
    else:
        command = gopro_train(*arguments, "--devices", "2")
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not (folder / CONFIG).is_file() and process.poll() is None:
        time.sleep(0.02)
    time.sleep(draw.uniform(0, seconds / 4))
    ranks = training_processes(process.pid)
    if by == "--devices":
        process.kill()
    elif ranks:
        os.kill(draw.choice(ranks), signal.SIGKILL)
    process.communicate(timeout=120)
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in ranks):
        assert time.monotonic() < deadline, "a process outlived the run"
        time.sleep(0.05)
    if not (folder / LEARNED).is_file():
        subprocess.run(gopro_train("--resume", str(folder), "--devices", "2"), check=True)
    assert difference(folder, whole) is None


def gopro_train(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gopro.cli", "train", *arguments]


def training_processes(parent: int) -> list[int]:
    """Return the processes below `parent` that train."""
    pids = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            command = stat.with_name("cmdline").read_bytes()
            if int(stat.read_text().rpartition(")")[2].split()[1]) == parent and (
                b"spawn_main" in command or b"gopro.cli" in command
            ):
                pids.append(int(stat.parent.name))
    return pids
