"""Real `gopro` commands to be killed, the images they work on, and whether two runs or sweeps are the same."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from gopro import cli
from gopro.data.load_dataset import load_dataset
from gopro.runs.run import LEARNED
from gopro.training.resume_state import LOG, RESUME

PATIENCE = 600.0
"""Seconds after which a command is taken to hang."""

START_METHOD = multiprocessing.get_start_method()
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["gopro.cli", "tools.torture.processes"])


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code, negative for a signal, and what it printed."""

    code: int | None
    said: str

    @property
    def in_one_line(self) -> bool:
        """Whether it refused its input as it should: exit code 2 and one line, no traceback."""
        lines = [line for line in self.said.splitlines() if line.strip()]
        return self.code == 2 and len(lines) == 1 and lines[0].startswith("error: ")


class Command:
    """A `gopro` command in a process of its own, in a session of its own.

    The process is forked from one that has imported everything, so that a moment drawn from its life falls on what the
    command does and not on the import.
    """

    def __init__(self, arguments: list[str], folder: Path, cache: Path):
        """folder: where what it prints goes; cache: its feature store."""
        self.said = folder / "said.txt"
        self.process = _context.Process(target=_do, args=(arguments, self.said, cache))
        self.began = time.monotonic()
        self.process.start()

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def kill(self) -> None:
        """SIGKILL, to this process alone."""
        self.process.kill()
        self.process.join()

    def end(self) -> Ended:
        """Waits for it."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.kill()
            return Ended(None, f"still running after {PATIENCE:.0f} s")
        return Ended(self.process.exitcode, self.said.read_text(errors="replace") if self.said.exists() else "")

    def ends_within(self, seconds: float) -> bool:
        """Waits so long at most."""
        self.process.join(max(0.0, seconds))
        return not self.process.is_alive()


def _do(arguments: list[str], said: Path, cache: Path) -> None:
    os.setsid()
    multiprocessing.set_start_method(START_METHOD, force=True)  # as of a command that was started by a shell
    with said.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ["GOPRO_CACHE"] = str(cache)
    sys.argv = ["gopro", *arguments]
    cli.main(arguments)


def do(arguments: list[str], folder: Path, cache: Path) -> Ended:
    """A command from its beginning to its end."""
    return Command(arguments, folder, cache).end()


def must_end(arguments: list[str], folder: Path, cache: Path) -> None:
    """A command that nobody disturbs, which others are compared with."""
    folder.mkdir(parents=True, exist_ok=True)
    ended = do(arguments, folder, cache)
    if ended.code != 0:
        raise RuntimeError(f"what nobody disturbed ended so: {ended}")


def cut_off(arguments: list[str], out: Path, cache: Path) -> None:
    """Begins a run in `out` and kills it when it has some epochs behind it."""
    running = Command([*arguments, "--output", str(out)], out.parent, cache)
    while not running.ends_within(0.002):
        if (out / RESUME).exists() and (out / LOG).read_bytes().count(b"\n") > 5:
            running.kill()
            return
    raise RuntimeError(f"the run ended before it could be cut off: {running.end()}")


def images(folder: Path, classes: int = 3, each: int = 2) -> Path:
    """Some images of the embedded benchmark as a data set of one's own, small enough for hundreds of runs."""
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


def descendants(pid: int) -> list[int]:
    """The processes below one, from /proc."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:  # it has ended
            continue
    below = [child for child, parent in parents.items() if parent == pid]
    return below + [further for child in below for further in descendants(child)]


def unlike(run: Path, whole: Path) -> str | None:
    """How a run that was cut off differs from one that was not: learned bits, log, files. None if it does not."""
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
    """The log without the seconds."""
    path = run / "log.csv"
    rows = [line.split(",") for line in path.read_text().splitlines()] if path.exists() else []
    for row in rows:
        yield [value for name, value in zip(rows[0], row, strict=True) if name != "seconds"]


def figures(results: Path) -> list[dict[str, Any]]:
    """The rows of a results file in one order, without what time and machine decide."""
    rows = [json.loads(line) for line in results.read_text().splitlines()]
    kept = [{key: value for key, value in row.items() if "seconds" not in key and "memory" not in key} for row in rows]
    return sorted(kept, key=str)


def random(seed: int, *what: object) -> Random:
    """A generator of one's own for each thing that is tried, so that they do not depend on one another."""
    return Random(f"{seed} {what}")
