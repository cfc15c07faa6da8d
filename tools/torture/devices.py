"""Runs on two processes against runs on one, step by step; one of the two killed at random moments; the same under
torchrun and as SLURM starts them; and sweeps on a Ray cluster whose workers are killed. All on the CPU, by gloo."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file

from gopro.methods.registry import METHODS
from gopro.runs.config import TrainConfig
from gopro.runs.run import CONFIG, LEARNED
from gopro.training.loop import Step
from gopro.training.train import train
from tools.torture.rows import Row

SEED = 7
PATIENCE = 60.0
"""Seconds within which all processes of a run must have ended, once one was killed."""

WISH = TrainConfig(
    data="emoji-activities", output=Path(), shots=2, epochs=4, batch=12, classes="base", workers=0, device="cpu"
)
FLAGS = "--data emoji-activities --method coop --shots 4 --epochs 12 --batch 16 --classes base --workers 0 --device cpu"
DEAD = {"rho_bias"}  # see tests/training/test_launch.py


def run(work: Path, times: int | None) -> Iterator[Row]:
    """The rows."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    for method in [name for name, (kind, _) in METHODS.items() if kind.recipe is not None]:
        yield _steps_as_one(method, work, times or 1)
    whole = work / "whole"
    seconds = _finish(["--output", str(whole), "--devices", "2"])
    yield _killed(1, work, whole, seconds, times or 6)
    yield _killed(0, work, whole, seconds, times or 6)
    yield _started("torchrun", _torchrun, work, whole, times or 2)
    yield _started("SLURM's variables", _slurm, work, whole, times or 2)
    yield _torchrun_killed(work, whole, seconds, times or 3)
    yield _ray(work, times or 3)


def _steps_as_one(method: str, work: Path, times: int) -> Row:
    """One process and two from the same start, with another seed each time."""
    held, losses, tensors, steps = 0, [], [], 0
    for seed in range(1, times + 1):
        said, learned = [], []
        for devices in (1, 2):
            figures: list[dict[str, float]] = []

            def keep(step: Step, figures: list[dict[str, float]] = figures) -> None:
                figures.append({name: value.item() for name, value in step.terms.items()})

            folder = work / f"{method}-{seed}-{devices}"
            train(replace(WISH, method=method, seed=seed, output=folder), devices=devices, on_step=keep)
            said.append(figures)
            learned.append(load_file(folder / LEARNED))
        steps = len(said[0])
        losses.append(max(abs(a[k] - b[k]) / max(1, abs(a[k])) for a, b in zip(*said, strict=True) for k in a))
        tensors.append(max((learned[0][k] - learned[1][k]).abs().max().item() for k in learned[0] if k not in DEAD))
        held += steps >= 20 and losses[-1] < 1e-5
    apart = f"losses differ by {max(losses):.1e} of their size at most, what was learned by {max(tensors):.1e}"
    seen = f"{steps} steps; {apart}"
    return Row(f"{method}: two processes against one", times, held, seen)


def _command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "gopro.cli", "train", *arguments]


def _finish(arguments: list[str]) -> float:
    """A run to its end. Returns its seconds."""
    started = time.monotonic()
    subprocess.run(_command(*FLAGS.split(), *arguments), check=True, capture_output=True)
    return time.monotonic() - started


def _children(parent: int) -> list[int]:
    """The processes that train beside this one."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            of = int(stat.read_text().rpartition(")")[2].split()[1])
            line = stat.with_name("cmdline").read_bytes()
            if of == parent and (b"spawn_main" in line or b"gopro.cli" in line):
                found.append(int(stat.parent.name))
    return found


def _begun(folder: Path, process: subprocess.Popen[str], delay: float) -> None:
    """Waits until a run has begun, and then so long, or until it is over."""
    while not (folder / CONFIG).is_file() and process.poll() is None:
        time.sleep(0.02)
    with suppress(subprocess.TimeoutExpired):
        process.wait(delay)


def _gone(pids: list[int]) -> bool:
    """Whether processes end in time."""
    deadline = time.monotonic() + PATIENCE
    while any(Path(f"/proc/{pid}").exists() for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _resumed(folder: Path) -> None:
    if not (folder / LEARNED).is_file():
        command = _command("--resume", str(folder), "--devices", "2")
        subprocess.run(command, check=False, capture_output=True)


def _same(folder: Path, whole: Path) -> bool:
    """Whether two runs learned the same bits."""
    if not (folder / LEARNED).is_file():
        return False
    a, b = load_file(folder / LEARNED), load_file(whole / LEARNED)
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def _killed(rank: int, work: Path, whole: Path, seconds: float, times: int) -> Row:
    """One of two processes killed: the other ends, and the run is gone on with to the same bits."""
    chance, held, longest, amiss, said, cut = random.Random(SEED + rank), 0, 0.0, [], "", 0
    for trial in range(times):
        folder = work / f"killed-{rank}-{trial}"
        command = _command(*FLAGS.split(), "--output", str(folder), "--devices", "2")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        _begun(folder, process, chance.uniform(0, seconds / 2))
        others = _children(process.pid)
        killed = time.monotonic()
        for pid in others if rank else [process.pid]:
            os.kill(pid, signal.SIGKILL)
        _, told = process.communicate()
        ended = _gone(others)
        longest = max(longest, time.monotonic() - killed)
        good = ended and (rank == 0 or process.returncode == 0 or (_one_line(told) and process.returncode == 2))
        said = said or (told if rank else "")
        cut += not (folder / LEARNED).is_file()
        _resumed(folder)
        if good and _same(folder, whole):
            held += 1
        else:
            amiss.append(f"trial {trial}: exit {process.returncode}, {told.strip()[-200:]!r}")
    seen = f"{cut} in mid-run; all ended within {longest:.1f} s; gone on with to the bits of a whole run"
    if rank and said:
        seen += f"; told: {_nameless(said, work)}"
    which = "second" if rank else "first, which the user started,"
    return Row(f"the {which} of two processes killed", times, held, "; ".join([seen, *amiss]))


def _one_line(told: str) -> bool:
    return told.startswith("error: ") and "--resume" in told and len(told.strip().splitlines()) == 1


def _nameless(told: str, work: Path) -> str:
    return re.sub(rf"{re.escape(str(work))}/\S+", "RUN", told.strip())


def _torchrun(arguments: list[str]) -> list[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "gopro.cli", "train", *arguments]
    return [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)]


def _slurm(arguments: list[str]) -> list[subprocess.Popen[str]]:
    srun = {"SLURM_JOB_ID": str(random.randrange(10**6)), "SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS": "2"}
    srun |= {"SLURM_NTASKS_PER_NODE": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "127.0.0.1"}
    return [
        subprocess.Popen(
            _command(*arguments),
            env={**os.environ, **srun, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]


def _started(
    by: str, start: Callable[[list[str]], list[subprocess.Popen[str]]], work: Path, whole: Path, times: int
) -> Row:
    """Two processes that another program started, against two of our own: the same bits, told once."""
    held, amiss = 0, []
    for trial in range(times):
        folder = work / f"{by[:5]}-{trial}"
        processes = start([*FLAGS.split(), "--output", str(folder)])
        said = [process.communicate() for process in processes]
        told = "".join(out for out, _ in said)
        if _same(folder, whole) and told.count("is trained on") == 1 and not any(p.returncode for p in processes):
            held += 1
        else:
            amiss.append(f"trial {trial}: {said!r}"[:400])
    return Row(f"two processes by {by}", times, held, "; ".join(["the same bits as --devices 2", *amiss]))


def _torchrun_killed(work: Path, whole: Path, seconds: float, times: int) -> Row:
    """One of torchrun's processes killed: torchrun ends, and the run is gone on with."""
    chance, held, longest, amiss = random.Random(SEED + 2), 0, 0.0, []
    for trial in range(times):
        folder = work / f"torchrun-killed-{trial}"
        [process] = _torchrun([*FLAGS.split(), "--output", str(folder)])
        _begun(folder, process, chance.uniform(0, seconds / 2))
        ranks = _children(process.pid)
        killed = time.monotonic()
        if ranks:
            os.kill(chance.choice(ranks), signal.SIGKILL)
        process.communicate()
        ended = _gone(ranks)
        longest = max(longest, time.monotonic() - killed)
        _resumed(folder)
        if ended and _same(folder, whole):
            held += 1
        else:
            amiss.append(f"trial {trial}: exit {process.returncode}")
    seen = f"all ended within {longest:.1f} s; gone on with by --devices 2 to the same bits"
    return Row("one of two processes of torchrun killed", times, held, "; ".join([seen, *amiss]))


CLUSTER = """
import sys
from ray.cluster_utils import Cluster

store = {"object_store_memory": 100_000_000}
cluster = Cluster(initialize_head=True, head_node_args={**store, "num_cpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=1, **store)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""

SWEEP = (
    "benchmark cross-dataset --source emoji-activities --targets emoji-activities:noto --methods coop --seeds 1 2 "
    "--shots 4 --epochs 12 --batch 32 --device cpu --workers 0"
)


def _ray(work: Path, times: int) -> Row:
    """Ray worker processes killed in mid-run, up to two a sweep."""
    sweep = [sys.executable, "-m", "gopro.cli", *SWEEP.split(), "--output"]
    subprocess.run([*sweep, str(work / "sweep")], check=True, capture_output=True)
    chance, held, kills, amiss = random.Random(SEED + 3), 0, 0, []
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as cluster:
        assert cluster.stdin is not None and cluster.stdout is not None
        address = cluster.stdout.readline().strip()
        for trial in range(times):
            folder = work / f"ray-{trial}"
            process = subprocess.Popen([*sweep, str(folder), "--ray", address], stdout=-3, stderr=subprocess.PIPE)
            for _ in range(chance.randint(1, 2)):
                while process.poll() is None and not (workers := _ray_workers(cluster.pid)):
                    time.sleep(0.05)
                time.sleep(chance.uniform(0, 5))
                if workers := _ray_workers(cluster.pid):
                    os.kill(chance.choice(workers), signal.SIGKILL)
                    kills += 1
            _, told = process.communicate()
            if process.returncode == 0 and _figures(folder) == _figures(work / "sweep"):
                held += 1
            else:
                amiss.append(f"trial {trial}: exit {process.returncode}, {told.decode()[-200:]!r}")
        cluster.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            cluster.wait(30)
        with suppress(ProcessLookupError):
            os.killpg(cluster.pid, signal.SIGKILL)
    seen = f"{kills} killed; every sweep ended with the rows of one in one process"
    return Row("sweeps on Ray whose workers are killed", times, held, "; ".join([seen, *amiss]))


def _ray_workers(session: int) -> list[int]:
    """The processes of the cluster that are at a run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            of = int(stat.read_text().rpartition(")")[2].split()[3])
            if of == session and b"ray::_work" in stat.with_name("cmdline").read_bytes():
                found.append(int(stat.parent.name))
    return sorted(found)


def _figures(folder: Path) -> list[str]:
    """A sweep's rows without what they cost."""
    path = folder / "results.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return sorted(str({k: v for k, v in row.items() if "seconds" not in k and "memory" not in k}) for row in rows)
