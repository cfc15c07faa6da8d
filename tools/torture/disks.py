"""Disks that fill up and folders that cannot be written: one line that names the file, and nothing computed is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gopro.runs.run import CONFIG
from tools.torture.processes import cut_off, do, figures, images, must_end, unlike
from tools.torture.rows import Row

TIMES = 20
"""Sizes of the disk that fills up."""

TOLD = "--shots 2 --batch 4 --workers 0 --method gopro --epochs 6"
SWEEP = "--methods zeroshot coop --seeds 1 --shots 1 --epochs 2 --batch 4 --workers 0"


def run(work: Path, times: int | None) -> Iterator[Row]:
    times = times or TIMES
    data = images(work / "images")
    arguments, whole = ["train", "--data", str(data), *TOLD.split()], work / "alone" / "whole"
    must_end([*arguments, "--output", str(whole)], whole.parent, work / "cache")
    if not can_mount(work):
        yield Row("full disks and read-only folders", 0, 0, "needs Linux, and root to mount a small disk")
        return
    yield full_disk(arguments, whole, work, times)
    yield full_store(data, work, max(1, times // 4))
    yield full_sweep(data, work, max(1, times // 2))
    yield read_only(arguments, whole, work)


def can_mount(work: Path) -> bool:
    try:
        with small_disk(work / "probe", 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def small_disk(place: Path, kib: int) -> Iterator[Path]:
    """A disk of its own, in memory."""
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", place], check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True, capture_output=True)
        place.rmdir()


def remount(place: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", place], check=True, capture_output=True)


def full_disk(arguments: list[str], whole: Path, work: Path, times: int) -> Row:
    """Disks of all sizes up to what a run needs; then room is made, and the run gone on with."""
    held, faults, met = 0, [], 0
    sizes = [4 * (1 + trial) if trial < 8 else 64 * (trial - 7) for trial in range(times)]
    for trial, size in enumerate(sizes):
        with small_disk(work / f"disk-{trial}", size) as disk:
            out, cache = disk / "run", work / "cache"
            ended = do([*arguments, "--output", str(out)], work, cache)
            fault = None
            if ended.code != 0:
                met += 1
                if not (ended.in_one_line and "No space left" in ended.said):
                    fault = f"with {size} KiB it ended so: {ended}"
                remount(disk, "size=16m")
                begun = (out / CONFIG).exists()
                ended = do(
                    ["train", "--resume", str(out)] if begun else [*arguments, "--output", str(out)], work, cache
                )
            fault = fault or (unlike(out, whole) if ended.code == 0 else f"with room again it ended so: {ended}")
            held += fault is None
            faults += [] if fault is None else [fault]
    note = f"{met} of the disks, of 4 to {max(sizes)} KiB, were full before the end"
    return Row("a disk that fills up while training", times, held, "; ".join([note, *faults]))


def full_store(data: Path, work: Path, times: int) -> Row:
    """The feature store's disk is full: a warning, and the run ends as with room."""
    told = ["train", "--data", str(data), *TOLD.split(), "--bank", "2", "--output"]
    place = work / "store"
    must_end([*told, str(place / "whole")], place, place / "cache")
    held, faults = 0, []
    for trial in range(times):
        with small_disk(work / f"store-{trial}", 4 * (1 + trial)) as disk:
            out = place / f"run-{trial}"
            ended = do([*told, str(out)], place, disk / "cache")
            fault = unlike(out, place / "whole") if ended.code == 0 else f"it ended so: {ended}"
            if fault is None and "features are not kept" not in ended.said:
                fault = f"nothing was said of it: {ended}"
            held += fault is None
            faults += [] if fault is None else [fault]
    return Row("a feature store without room", times, held, "; ".join(["a warning, and the same bits", *faults]))


def full_sweep(data: Path, work: Path, times: int) -> Row:
    """Disks of several sizes for a sweep; then room is made, and the same command called again."""
    told = ["benchmark", "base-to-new", "--data", str(data), *SWEEP.split(), "--output"]
    place = work / "sweep"
    must_end([*told, str(place / "whole")], place, work / "cache")
    held, faults, met = 0, [], 0
    for trial in range(times):
        with small_disk(work / f"sweep-{trial}", 8 * (1 + trial)) as disk:
            ended = do([*told, str(disk / "out")], place, work / "cache")
            fault = None
            if ended.code != 0:
                met += 1
                if "Traceback" in ended.said or "No space left" not in ended.said:
                    fault = f"it ended so: {ended}"
                remount(disk, "size=16m")
                ended = do([*told, str(disk / "out")], place, work / "cache")
            if ended.code != 0:
                fault = fault or f"with room again it ended so: {ended}"
            elif figures(disk / "out" / "results.jsonl") != figures(place / "whole" / "results.jsonl"):
                fault = fault or "other results"
            held += fault is None
            faults += [] if fault is None else [fault]
    note = f"{met} of the disks, of 8 to {8 * times} KiB, were full before the end"
    return Row("a disk that fills up while a sweep goes on", times, held, "; ".join([note, *faults]))


def read_only(arguments: list[str], whole: Path, work: Path) -> Row:
    """A folder that cannot be written, for a new run, for one that is gone on with and for a sweep."""
    tried, faults = 0, []
    with small_disk(work / "read-only", 4096) as disk:
        cut = disk / "cut"
        cut_off(arguments, cut, work / "cache")
        remount(disk, "ro")
        sweep = ["benchmark", "base-to-new", "--data", "emoji-activities", "--output", str(disk / "sweep")]
        for command in ([*arguments, "--output", str(disk / "new")], ["train", "--resume", str(cut)], sweep):
            tried += 1
            ended = do(command, work, work / "cache")
            if not (ended.in_one_line and "Read-only file system" in ended.said and str(disk) in ended.said):
                faults.append(f"{command[:2]} ended so: {ended}")
        remount(disk, "rw")
        tried += 1
        ended = do(["train", "--resume", str(cut)], work, work / "cache")
        if ended.code != 0 or unlike(cut, whole) is not None:
            faults.append(f"writable again, it ended so: {ended}")
    note = "a new run, one that is gone on with, a sweep; and the second of them when it can be written again"
    return Row("a read-only folder", tried, tried - len(faults), "; ".join([note, *faults]))
