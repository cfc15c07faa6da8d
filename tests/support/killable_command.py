"""`gopro` commands in processes that a test can kill, small images for them, and a comparison of two run folders."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from gopro import cli
from gopro.data.load_dataset import load_dataset
from gopro.runs.run import LEARNED
from tests.support.commands import CommandResult

HANGS_AFTER = 600.0
"""Seconds after which a command counts as hanging."""

START_METHOD = multiprocessing.get_start_method()
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["gopro.training.train", "tests.support.killable_command"])


class KillableCommand:
    """A `gopro` command in a process and session of its own.

    The process is forked from one that has already imported everything, so that a kill at a random time hits the
    command's work and not its imports.
    """

    def __init__(self, arguments: list[str], folder: Path, cache: Path):
        """Start a command.

        Args:
            folder: where its output is written, to `out.txt` and `err.txt`.
            cache: folder of the feature store.
        """
        self.out, self.err = folder / "out.txt", folder / "err.txt"
        self.process = _context.Process(target=_main, args=(arguments, self.out, self.err, cache))
        self.process.start()

    def kill(self) -> None:
        """Send SIGKILL to this process, but not to its children."""
        self.process.kill()
        self.process.join()

    def wait(self) -> CommandResult:
        """Wait for the command to end."""
        self.process.join(HANGS_AFTER)
        if self.process.is_alive():
            self.kill()
            return CommandResult(None, "", f"still running after {HANGS_AFTER:.0f} s")
        out, err = (file.read_text(errors="replace") if file.exists() else "" for file in (self.out, self.err))
        return CommandResult(self.process.exitcode, out, err)

    def ends_within(self, seconds: float) -> bool:
        """Wait at most `seconds` and return whether the command has ended."""
        self.process.join(max(0.0, seconds))
        return not self.process.is_alive()


def _main(arguments: list[str], out: Path, err: Path, cache: Path) -> None:
    os.setsid()
    multiprocessing.set_start_method(START_METHOD, force=True)  # as in a command started from a shell
    for descriptor, path in ((1, out), (2, err)):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    os.environ["GOPRO_CACHE"] = str(cache)
    sys.argv = ["gopro", *arguments]
    cli.main(arguments)


def run(arguments: list[str], folder: Path, cache: Path) -> CommandResult:
    """Run a command to its end."""
    return KillableCommand(arguments, folder, cache).wait()


def refused_in_one_line(result: CommandResult) -> bool:
    """Return whether the command exited with code 2 and printed an error of one line.

    Before the error it may have said what backbone it runs, and nothing else.
    """
    out, err = ([line for line in text.splitlines() if line.strip()] for text in (result.out, result.err))
    announced = len(out) <= 1 and all(line.startswith("Backbone: ") for line in out)
    return result.code == 2 and announced and len(err) == 1 and err[0].startswith("error: ")


def write_images(folder: Path, classes: int = 3, per_class: int = 2) -> Path:
    """Write a few images of the embedded benchmark as a folder of class folders, small enough for hundreds of runs."""
    data = load_dataset("emoji-activities")
    for part in ("train", "val", "test"):
        counts = [0] * classes
        for sample in getattr(data, part):
            if sample.label < classes and counts[sample.label] < per_class:
                counts[sample.label] += 1
                place = folder / part / data.classnames[sample.label].replace(" ", "_")
                place.mkdir(parents=True, exist_ok=True)
                sample.image.open().save(place / f"{counts[sample.label]}.png")
    return folder


def difference(run: Path, whole: Path) -> str | None:
    """Return how an interrupted run differs from another in learned bits, log or file names, or None."""
    try:
        if (run / LEARNED).read_bytes() != (whole / LEARNED).read_bytes():
            return "the learned tensors differ"
        if list(_log(run)) != list(_log(whole)):
            return "the logs differ"
        names = [sorted(path.name for path in folder.iterdir()) for folder in (run, whole)]
        return None if names[0] == names[1] else f"files {names[0]}, not {names[1]}"
    except OSError as error:
        return str(error)


def _log(run: Path) -> Iterator[list[str]]:
    """Yield the rows of the log without the column of seconds."""
    path = run / "log.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()] if path.exists() else []
    for row in rows:
        yield [value for name, value in zip(rows[0], row, strict=True) if name != "seconds"]
