"""`gopro train` killed (SIGKILL) at random moments of its life, gone on with by --resume, killed again, and compared
with a run that was left alone: bit-identical learned tensors, the same log, the same files."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from gopro.runs.run import CONFIG, LEARNED
from gopro.training.resume_state import RESUME
from tools.torture.processes import Command, Ended, do, images, random, unlike
from tools.torture.rows import Row

SEED = 20
TIMES, IN_A_RUN = 15, 3
"""Kills a row, and of one run at most."""

RUNS = {
    "`coop`": "--method coop --epochs 12 --workers 0",
    "`gopro`, 2 processes that make views": "--method gopro --epochs 6 --workers 2",
    "`gopro`, a view bank from an empty store": "--method gopro --epochs 6 --bank 3 --workers 0",
    "`coop`, the best epoch kept": "--method coop --epochs 8 --select val --workers 0",
    "`maple`, 2 processes that make views": "--method maple --epochs 5 --workers 2",
    "`tip-adapter-f`": "--method tip-adapter-f --epochs 8 --workers 0",
}
WRITING = "--method coop --epochs 20 --batch 12 --workers 0"

Kill = Callable[[Command, Path], bool]
"""Waits for its moment and kills; False if the command had ended before it came."""


@dataclass
class Tally:
    """What became of a row's kills."""

    kills: int = 0
    lost: int = 0
    seen: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)

    def row(self, what: str) -> Row:
        seen = [f"{count} {moment}" for moment, count in self.seen.most_common()]
        return Row(what, self.kills, self.kills - self.lost, "; ".join(seen + self.faults))


def run(work: Path, times: int | None) -> Iterator[Row]:
    times = times or TIMES
    data = images(work / "images")
    shared = ["--data", str(data), "--shots", "2", "--batch", "4"]
    for name, told in RUNS.items():
        arguments, folder = [*shared, *told.split()], work / re.sub(r"\W+", "-", name)
        whole, seconds = left_alone(arguments, folder)
        yield killed(name, arguments, folder, whole, times, lambda rng, seconds=seconds: at(rng.uniform(0, seconds)))
    arguments, folder = [*shared[:-2], *WRITING.split()], work / "writing"
    whole, _ = left_alone(arguments, folder)
    yield killed("while a file is written", arguments, folder, whole, times, lambda rng: writing(rng.randrange(12)))
    yield starting([*shared, *RUNS["`coop`"].split()], work / "starting", min(times, 8))


def left_alone(arguments: list[str], folder: Path) -> tuple[Path, float]:
    """The run that others are compared with, and how many seconds it took."""
    folder.mkdir()
    started, whole = time.monotonic(), folder / "whole"
    ended = do(["train", *arguments, "--output", str(whole)], folder, folder / "cache")
    if ended.code != 0:
        raise RuntimeError(f"a run that nobody killed ended so: {ended}")
    return whole, time.monotonic() - started


def killed(
    what: str, arguments: list[str], folder: Path, whole: Path, times: int, draw: Callable[[Random], Kill]
) -> Row:
    """Runs with up to IN_A_RUN kills each, until there were so many."""
    tally, trial = Tally(), 0
    while tally.kills < times:
        trial += 1
        rng, place = random(SEED, what, trial), folder / f"trial-{trial}"
        place.mkdir()
        kills = [draw(rng) for _ in range(min(rng.randint(1, IN_A_RUN), times - tally.kills))]
        before = tally.kills
        fault = one(arguments, place, whole, kills, tally)
        if fault is None:
            shutil.rmtree(place)
        else:
            tally.lost += max(1, tally.kills - before)
            tally.faults.append(f"{place.name}: {fault}")
    return tally.row(what)


def one(arguments: list[str], place: Path, whole: Path, kills: list[Kill], tally: Tally) -> str | None:
    """One run, killed and gone on with. Returns what is wrong with its end, if anything."""
    out, cache = place / "run", place / "cache"
    anew = ["train", *arguments, "--output", str(out)]
    next_command = anew
    for kill in kills:
        command = Command(next_command, place, cache)
        if not kill(command, out):
            return wrong(out, whole, command.end())
        tally.kills += 1
        tally.seen[moment(out)] += 1
        next_command = ["train", "--resume", str(out)]
        if not (out / CONFIG).exists():
            ended = do(next_command, place, cache)
            if not ended.in_one_line:
                return f"there was nothing to go on with, and --resume ended so: {ended}"
            next_command = anew
    return wrong(out, whole, do(next_command, place, cache))


def wrong(out: Path, whole: Path, ended: Ended) -> str | None:
    """What is wrong with the end of a run, if anything; one that was killed after its last act says that it is done."""
    if ended.code == 0 or (ended.in_one_line and "is finished" in ended.said):
        return unlike(out, whole)
    return f"a command ended so: {ended}"


def moment(out: Path) -> str:
    """Where in its life a kill has met a run, as its folder shows."""
    if half_written(out):
        return "with a file half written"
    if not (out / CONFIG).exists():
        return "before it began"
    if (out / LEARNED).exists():
        return "after its end" if not (out / RESUME).exists() else "while it tidied up"
    return "later" if (out / RESUME).exists() else "in its first epoch"


def half_written(out: Path) -> bool:
    """Whether a file is being written in a run's folder, or was when its process was killed."""
    try:
        return any(name.startswith(".") and name[-1].isdecimal() for name in os.listdir(out))
    except OSError:  # there is no folder yet
        return False


def at(seconds: float) -> Kill:
    """After so long."""

    def kill(command: Command, out: Path) -> bool:
        if command.ends_within(seconds):
            return False
        command.kill()
        return True

    return kill


def writing(skipped: int) -> Kill:
    """When a file is being written, after so many others were."""

    def kill(command: Command, out: Path) -> bool:
        left, was = skipped, False
        while not command.ends_within(0):
            is_now = half_written(out)
            if is_now and not was:
                left -= 1
            if is_now and left < 0:
                command.kill()
                return True
            was = is_now
        return False

    return kill


def starting(arguments: list[str], folder: Path, times: int) -> Row:
    """The whole command, Python's start and all imports among it, killed before it has written anything or then."""
    whole, _ = left_alone(arguments, folder)
    tally = Tally()
    environment = {**os.environ, "GOPRO_CACHE": str(folder / "cache")}
    started, seconds = time.monotonic(), 0.0
    for trial in range(times + 1):
        place = folder / f"trial-{trial}"
        place.mkdir()
        anew = ["train", *arguments, "--output", str(place / "run")]
        command = [sys.executable, "-m", "gopro.cli", *anew]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        if trial == 0:  # how long it takes until something is written
            while not (place / "run" / CONFIG).exists() and process.poll() is None:
                time.sleep(0.01)
            seconds = time.monotonic() - started
        else:
            time.sleep(random(SEED, "starting", trial).uniform(0, 1.1 * seconds))
        process.kill()
        process.wait()
        if trial == 0:
            continue
        tally.kills += 1
        tally.seen[moment(place / "run")] += 1
        command = ["train", "--resume", str(place / "run")] if (place / "run" / CONFIG).exists() else anew
        ended = do(command, place, folder / "cache")
        if fault := wrong(place / "run", whole, ended):
            tally.lost += 1
            tally.faults.append(f"{place.name}: {fault}")
    return tally.row("while the program starts")
