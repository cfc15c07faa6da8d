"""`gopro benchmark --jobs 2` whose worker processes and which itself are killed (SIGKILL) at random moments, called
again until it is done, and compared with a sweep that was left alone: the same rows, bit-identical models, nothing run
twice."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from gopro.run import LEARNED
from tools.torture.processes import Command, descendants, do, figures, pictures, random
from tools.torture.rows import Row

SEED = 21
TIMES = 30
"""Kills of workers and of sweeps, together."""

CALLS = 2
"""Calls that are killed of one sweep, a worker before each."""

TOLD = "--methods zeroshot coop gopro --seeds 1 2 --shots 1 --epochs 6 --batch 4 --workers 0 --jobs 2"


@dataclass
class Trial:
    """One sweep, its folder, and what happened to it."""

    place: Path
    workers: int = 0
    sweeps: int = 0
    intruders: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def output(self) -> Path:
        return self.place / "sweep"


def run(work: Path, times: int | None) -> Iterator[Row]:
    times = times or TIMES
    data = pictures(work / "pictures", classes=4)
    arguments = ["benchmark", "base-to-new", "--data", str(data), *TOLD.split()]
    whole, started = work / "whole", time.monotonic()
    ended = do([*arguments, "--output", str(whole)], work, work / "cache")
    if ended.code != 0:
        raise RuntimeError(f"a sweep that nobody killed ended so: {ended}")
    seconds = time.monotonic() - started
    trials: list[Trial] = []
    while sum(trial.workers + trial.sweeps for trial in trials) < times:
        trials.append(Trial(work / f"trial-{len(trials) + 1}"))
        trials[-1].place.mkdir()
        killed(arguments, trials[-1], whole, seconds, random(SEED, len(trials)))
    faults = [f"{trial.place.name}: {fault}" for trial in trials for fault in trial.faults]
    runs = len(list(whole.glob("runs/*")))
    for what, of in (("a worker is killed", "workers"), ("the sweep itself is killed", "sweeps")):
        counts = [getattr(trial, of) for trial in trials]
        held = sum(count for count, trial in zip(counts, trials, strict=True) if not trial.faults)
        note = f"{len(trials)} sweeps of {runs} runs and {len(figures(whole / 'results.jsonl'))} results each"
        yield Row(what, sum(counts), held, "; ".join([note, *faults]))
    intruders, refused = sum(trial.intruders for trial in trials), sum(trial.refused for trial in trials)
    yield Row("a second sweep in a folder where one goes on", intruders, refused, "one line that says whose it is")


def killed(arguments: list[str], trial: Trial, whole: Path, seconds: float, rng: Random) -> None:
    """A sweep some of whose calls are killed, and workers of these before, and then one that is left alone."""
    command, cache = [*arguments, "--output", str(trial.output)], trial.place / "cache"
    orphans: list[int] = []
    stamps: dict[Path, tuple[int, int]] = {}
    for number in range(CALLS):
        call = Command(command, trial.place, cache)
        last = rng.uniform(0.3, 0.9) * seconds
        if call.ends_within(rng.uniform(0, last)):
            break
        if workers := spawned(call.pid):
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                trial.workers += 1
        if number == 0 and (trial.output / "history.jsonl").exists() and not call.ends_within(0):
            beside = trial.place / "second"
            beside.mkdir()
            second = do(command, beside, cache)
            if not call.ends_within(0):
                trial.intruders += 1
                trial.refused += second.in_one_line and f"is in use by process {call.pid} on" in second.said
        if call.ends_within(call.began + last - time.monotonic()):
            break
        orphans += spawned(call.pid)
        call.kill()
        trial.sweeps += 1
        stamps = {path: stamp(path) for path in trial.output.glob(f"runs/*/{LEARNED}")} | stamps
    ended = do(command, trial.place, cache)
    if ended.code == 1:  # a run whose worker was killed twice counts as failed, and the same command does it
        ended = do(command, trial.place, cache)
    fault = f"a command ended so: {ended}" if ended.code != 0 else unlike(trial.output, whole)
    trial.faults += [] if fault is None else [fault]
    trial.faults += [f"{path.parent.name} was run twice" for path, was in stamps.items() if stamp(path) != was]
    trial.faults += [f"worker {pid} outlived its sweep" for pid in orphans if is_alive(pid)]


def spawned(pid: int) -> list[int]:
    """The worker processes of a sweep."""
    return [child for child in descendants(pid) if b"spawn_main" in _command_line(child)]


def is_alive(pid: int) -> bool:
    """Whether a worker goes on; what has ended and that nobody asked after has no command line."""
    return b"spawn_main" in _command_line(pid)


def _command_line(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def stamp(path: Path) -> tuple[int, int]:
    """What changes when a file is written again."""
    stat = path.stat()
    return stat.st_ino, stat.st_mtime_ns


def unlike(sweep: Path, whole: Path) -> str | None:
    """How a sweep differs from another: rows, learned bits, files. None if it does not."""
    rows = figures(sweep / "results.jsonl")
    if rows != figures(whole / "results.jsonl"):
        return f"{len(rows)} rows, and not those of the sweep that was left alone"
    for path in whole.glob(f"runs/*/{LEARNED}"):
        if (sweep / path.relative_to(whole)).read_bytes() != path.read_bytes():
            return f"other learned tensors in {path.parent.name}"
    names = [sorted(str(path.relative_to(of)) for path in (of / "runs").rglob("*")) for of in (sweep, whole)]
    return None if names[0] == names[1] else f"other files: {set(names[0]) ^ set(names[1])}"
