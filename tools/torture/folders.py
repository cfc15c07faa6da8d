"""Damaged and foreign files in a run's folder, two processes in one folder, results cut in the middle of a line: what
is wrong is named in one line, is never taken for a result, and costs nothing that was computed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

from gopro import benchmark
from gopro.runs.config import BenchmarkConfig
from gopro.runs.results import Results, append_json, whole_lines
from gopro.runs.run import CONFIG, LEARNED
from gopro.training.resume_state import LOG, RESUME
from tools.torture.processes import Command, cut_off, do, figures, images, must_end, random, unlike
from tools.torture.rows import Row

SEED = 22
TIMES = 10
"""Places where each file is cut, pairs of processes, and sweeps that are called again."""

TOLD = "--shots 2 --batch 4 --workers 0 --epochs 6"

Damage = Callable[[Path, int], None]


def run(work: Path, times: int | None) -> Iterator[Row]:
    times, cache = times or TIMES, work / "cache"
    data = images(work / "images")
    arguments = ["train", "--data", str(data), *TOLD.split()]
    whole, cut, strange = work / "whole", work / "cut", work / "strange"
    coop = [*arguments, "--method", "coop"]
    must_end([*coop, "--output", str(whole)], work, cache)
    cut_off(coop, cut, cache)
    cut_off([*coop, "--seed", "2"], strange, cache)
    must_end([*arguments, "--method", "gopro", "--output", str(work / "other")], work, cache)
    shutil.copy(work / "other" / LEARNED, strange / LEARNED)
    for name in (CONFIG, RESUME, LOG):
        yield damaged(name, ["train", "--resume"], cut, whole, strange, work, times)
    yield damaged(LEARNED, ["eval"], whole, whole, strange, work, times)
    yield two_at_once(coop, whole, work, times)
    yield torn(work, data, times)


def damaged(name: str, command: list[str], base: Path, whole: Path, strange: Path, work: Path, times: int) -> Row:
    """A file of a run is cut short, becomes another, or a folder; then it is put back and the run gone on with."""

    def shortened(path: Path, trial: int) -> None:
        os.truncate(path, random(SEED, name, trial).randrange(path.stat().st_size))

    def foreign(path: Path, trial: int) -> None:
        path.write_bytes(others[trial])

    def folder(path: Path, trial: int) -> None:
        path.unlink()
        path.mkdir()

    others = [b"no such thing", b"", b"[]", b'{"config": {}}', (strange / LEARNED).read_bytes()]
    others += [] if name == CONFIG else [(strange / name).read_bytes()]
    ways: list[tuple[Damage, int]] = [(shortened, times), (foreign, len(others)), (folder, 1)]
    faults = []
    for way, count in ways:
        for trial in range(count):
            out = work / f"{way.__name__}-{trial}-{name}"
            shutil.copytree(base, out)
            way(out / name, trial)
            ended = do([*command, str(out)], work, work / "cache")
            harmless = way is shortened and name == LOG and ended.code == 0  # of an epoch that was not finished
            if not harmless and not (ended.in_one_line and name in ended.said):
                faults.append(f"{out.name} ended so: {ended}")
                continue
            if not harmless:
                shutil.rmtree(out / name) if (out / name).is_dir() else (out / name).unlink()
                shutil.copy(base / name, out / name)
                ended = do([*command, str(out)], work, work / "cache")
            fault = f"it ended so: {ended}" if ended.code != 0 else unlike(out, whole) if base != whole else None
            faults += [] if fault is None else [f"{out.name}, put back: {fault}"]
            shutil.rmtree(out)
    tried = sum(count for _, count in ways)
    note = "; ".join(["named in one line; put back, it ends as if nothing had been", *faults])
    return Row(f"`{name}` cut short, another's, or a folder", tried, tried - len(faults), note)


def two_at_once(arguments: list[str], whole: Path, work: Path, times: int) -> Row:
    """A second process on a run that goes on is refused and told who is at it; the first one ends as if alone."""
    faults = []
    for trial in range(times):
        place = work / f"two-{trial}"
        (place / "second").mkdir(parents=True)
        wait = random(SEED, "two", trial).uniform(0, 0.5)
        while True:
            first = Command([*arguments, "--output", str(place / "run")], place, work / "cache")
            while not (place / "run" / CONFIG).exists() and not first.ends_within(0.002):
                pass
            if not first.ends_within(wait):
                break
            shutil.rmtree(place / "run")  # it had been through by then
            wait /= 2
        os.kill(first.pid, signal.SIGSTOP)  # so that it is there as long as the second one is
        second = do(["train", "--resume", str(place / "run")], place / "second", work / "cache")
        os.kill(first.pid, signal.SIGCONT)
        ended = first.end()
        if not (second.in_one_line and f"is in use by process {first.pid} on" in second.said):
            faults.append(f"the second ended so: {second}")
        elif ended.code != 0 or unlike(place / "run", whole) is not None:
            faults.append(f"the first ended so: {ended}, {unlike(place / 'run', whole)}")
    note = "; ".join(["refused in one line that says whose it is; the first ends as if alone", *faults])
    return Row("a second process on a run that goes on", times, times - len(faults), note)


def torn(work: Path, data: Path, times: int) -> Row:
    """`results.jsonl` cut at every byte of its last line, which is then made again, some of the times by the sweep."""
    config = BenchmarkConfig(
        output=work / "torn", data=(str(data),), methods=("zeroshot",), seeds=(1,), shots=(1,), workers=0
    )
    benchmark("base-to-new", config)
    path = work / "torn" / "results.jsonl"
    before, rows = path.read_bytes(), figures(path)
    last = whole_lines(path)[-1]
    begin = len(before) - len(last) - 1
    redone = set(random(SEED, "torn").sample(range(begin, len(before)), times))
    faults = []
    for size in range(begin, len(before)):
        path.write_bytes(before[:size])
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            there = Results(path).rows
        if size in redone:
            with warnings.catch_warnings(action="ignore"):
                benchmark("base-to-new", config)
        else:
            append_json(path, json.loads(last))
        if len(there) != len(rows) - 1 or figures(path) != rows or len(told) != (size > begin):
            faults.append(f"cut at byte {size - begin} of {len(last)}")
    note = f"warned of, no result, made again, {len(redone)} times by calling the sweep again"
    tried = len(before) - begin
    return Row(
        "`results.jsonl` cut at each byte of its last line", tried, tried - len(faults), "; ".join([note, *faults])
    )
