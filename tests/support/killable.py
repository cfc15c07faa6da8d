"""Real `gopro` commands to kill, the images they work on, and how two runs or benchmarks differ."""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gopro import cli
from gopro.data.load_dataset import load_dataset
from gopro.runs.run import LEARNED

HANGS_AFTER = 600.0
"""Seconds after which a command is taken to hang."""

START_METHOD = multiprocessing.get_start_method()
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["gopro.training.train", "tests.support.killable"])


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        code: exit code, negative for a signal.
        output: what it printed.
    """

    code: int | None
    output: str

    @property
    def in_one_line(self) -> bool:
        """Whether it refused its input: exit code 2 and one line, no traceback."""
        lines = [line for line in self.output.splitlines() if line.strip()]
        return self.code == 2 and len(lines) == 1 and lines[0].startswith("error: ")


class Command:
    """A `gopro` command in a process of its own, in a session of its own.

    The process is forked from one that has imported everything, so that a moment drawn from its life falls on what the
    command does and not on the import.
    """

    def __init__(self, arguments: list[str], folder: Path, cache: Path):
        """Start a command.

        Args:
            folder: where its output is written.
            cache: its feature store.
        """
        self.output = folder / "output.txt"
        self.process = _context.Process(target=_main, args=(arguments, self.output, cache))
        self.began = time.monotonic()
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        """Send SIGKILL, to this process alone."""
        self.process.kill()
        self.process.join()

    def end(self) -> Ended:
        """Wait for the command to end."""
        self.process.join(HANGS_AFTER)
        if self.process.is_alive():
            self.kill()
            return Ended(None, f"still running after {HANGS_AFTER:.0f} s")
        return Ended(self.process.exitcode, self.output.read_text(errors="replace") if self.output.exists() else "")

    def ends_within(self, seconds: float) -> bool:
        """Return whether the command ends within so long."""
        self.process.join(max(0.0, seconds))
        return not self.process.is_alive()


def _main(arguments: list[str], output: Path, cache: Path) -> None:
    os.setsid()
    multiprocessing.set_start_method(START_METHOD, force=True)  # as of a command that was started by a shell
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["GOPRO_CACHE"] = str(cache)
    sys.argv = ["gopro", *arguments]
    cli.main(arguments)


def run(arguments: list[str], folder: Path, cache: Path) -> Ended:
    """Run a command from beginning to end."""
    return Command(arguments, folder, cache).end()


def images(folder: Path, classes: int = 3, each: int = 2) -> Path:
    """Write some images of the embedded benchmark as a folder of class folders, small enough for hundreds of runs."""
    data = load_dataset("emoji-activities")
    for part in ("train", "val", "test"):
        taken = [0] * classes
        for sample in getattr(data, part):
            if sample.label < classes and taken[sample.label] < each:
                taken[sample.label] += 1
                place = folder / part / data.classnames[sample.label].replace(" ", "_")
                place.mkdir(parents=True, exist_ok=True)
                sample.image.open().save(place / f"{taken[sample.label]}.png")
    return folder


def difference(run: Path, whole: Path) -> str | None:
    """Return how a run that was interrupted differs from one that was not (learned bits, log, files), or None."""
    try:
        if (run / LEARNED).read_bytes() != (whole / LEARNED).read_bytes():
            return "other learned tensors"
        if list(_log(run)) != list(_log(whole)):
            return "another log"
        names = [sorted(path.name for path in folder.iterdir()) for folder in (run, whole)]
        return None if names[0] == names[1] else f"files {names[0]}, not {names[1]}"
    except OSError as error:
        return str(error)


def _log(run: Path) -> Iterator[list[str]]:
    """Yield the rows of the log without the seconds."""
    path = run / "log.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()] if path.exists() else []
    for row in rows:
        yield [value for name, value in zip(rows[0], row, strict=True) if name != "seconds"]
