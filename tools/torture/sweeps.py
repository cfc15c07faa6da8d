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

from gopro.runs.run import LEARNED
from gopro.training.folder_lock import LOCK
from tools.torture.processes import PATIENCE, Command, Ended, descendants, do, figures, images, random
from tools.torture.rows import Row

SEED = 21
TIMES = 24
"""Kills of workers and of sweeps, together."""

CALLS = 3
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
    data = images(work / "images", classes=4)
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
    """A sweep some of whose calls are killed, a worker of each before, and then one that is left alone."""
    command, cache = [*arguments, "--output", str(trial.output)], trial.place / "cache"
    orphans: dict[int, bytes] = {}
    stamps: dict[Path, tuple[int, int]] = {}
    for _ in range(CALLS):
        call, last = Command(command, trial.place, cache), rng.uniform(0.2, 0.7) * seconds
        if call.ends_within(rng.uniform(0.2, 1) * last):
            break
        if workers := spawned(call.pid):
            with suppress(ProcessLookupError):
                os.kill(rng.choice(workers), signal.SIGKILL)
                trial.workers += 1
        if call.ends_within(call.began + last - time.monotonic()):
            break
        orphans |= {pid: born(pid) for pid in spawned(call.pid)}
        call.kill()
        trial.sweeps += 1
        stamps = {path: stamp(path) for path in trial.output.glob(f"runs/*/{LEARNED}")} | stamps
    ended = intruded(command, trial, cache)
    if ended.code == 1:  # a run whose worker was killed twice counts as failed, and the same command does it
        ended = do(command, trial.place, cache)
    fault = f"a command ended so: {ended}" if ended.code != 0 else unlike(trial.output, whole)
    trial.faults += [] if fault is None else [fault]
    trial.faults += [f"{path.parent.name} was run twice" for path, was in stamps.items() if stamp(path) != was]
    while left := [pid for pid, when in orphans.items() if when and born(pid) == when]:
        time.sleep(0.1)  # one that was still starting sees that it is an orphan when it has started
        if time.monotonic() > call.began + PATIENCE:
            trial.faults.append(f"workers {left} outlived their sweep")
            break


def intruded(command: list[str], trial: Trial, cache: Path) -> Ended:
    """A call that is left alone but for a second one in the same folder, which must be refused."""
    beside = trial.place / "second"
    beside.mkdir()
    call = Command(command, trial.place, cache)
    while not call.ends_within(0.01):
        if said(trial.output / LOCK).startswith(f"process {call.pid} "):
            second = do(command, beside, cache)
            if not call.ends_within(0):
                trial.intruders += 1
                trial.refused += second.in_one_line and f"is in use by process {call.pid} on" in second.said
            break
    return call.end()


def said(path: Path) -> str:
    """What a file holds, if there is one."""
    return path.read_text() if path.exists() else ""


def spawned(pid: int) -> list[int]:
    """The worker processes of a sweep."""
    found = []
    for child in descendants(pid):
        with suppress(OSError):
            if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found


def born(pid: int) -> bytes:
    """When a process that has not ended was started, as its system counts; nothing of one that has."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b") ")[2].split()
    except OSError:
        return b""
    return b"" if state == b"Z" else rest[18]


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
