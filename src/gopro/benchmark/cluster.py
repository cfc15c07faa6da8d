"""Runs on a Ray cluster. A run whose machine is lost is begun again on another, from its last finished epoch."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gopro.benchmark.processes import Task
from gopro.benchmark.protocols import Job, Test
from gopro.benchmark.worker import Failed, Message, Worker
from gopro.errors import InputError

RETRIES = 3
"""How often Ray begins a run again whose worker or machine was lost."""
LOOK, GONE = 5.0, 300.0
"""Seconds between two looks at the machines while no run ends, and without a machine until the runs are given up."""


def on_cluster(tasks: Sequence[Task], address: str) -> Iterator[tuple[int, Message]]:
    """Does the tasks on the Ray cluster at `address`, and yields what they say as (number of the task, message).

    A task asks for one CPU for itself and one for each process that makes its views, and for a GPU unless it was told
    to compute on the CPU or no machine has one. What a task says is known when it has ended. The package must be
    installed on the cluster's machines, and data and output folders lie at the same paths there.

    Raises:
        InputError: ray is not installed, there is no such cluster, it is lost, or none of its machines has what a run
            needs.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise InputError("--ray needs Ray: pip install '.[ray]'") from error
    ours = not ray.is_initialized()
    if ours:
        try:
            _knock(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            first = str(error).strip().partition("\n")[0]
            raise InputError(f"--ray {address}: there is no cluster to be reached ({first})") from error
    try:
        machines = _machines(ray)
        train = tasks[0][0].train
        wish = {"CPU": 1 + train.workers, "GPU": int(train.device != "cpu" and any("GPU" in m for m in machines))}
        if not _suits(machines, wish):
            raise InputError(
                f"--ray {address}: a run needs {wish['CPU']} CPUs and {wish['GPU']} GPUs of one machine, and none has "
                "them: use fewer --workers, or --device cpu"
            )
        remote: Any = ray.remote(num_cpus=wish["CPU"], num_gpus=wish["GPU"], max_retries=RETRIES)(_work)
        pending = {remote.remote(*task): number for number, task in enumerate(tasks)}
        seen = time.monotonic()
        while pending:
            ended, _ = ray.wait(list(pending), timeout=LOOK)
            if ended or _suits(_machines(ray), wish):
                seen = time.monotonic()
            elif time.monotonic() - seen > GONE:  # Ray would wait for new ones for ever
                for number in pending.values():
                    yield number, Failed("the cluster has lost all machines that could do it")
                return
            if not ended:
                continue
            number = pending.pop(ended[0])
            try:
                messages: list[Message] = ray.get(ended[0])
            except RayError as error:  # before OSError: what a run raises is both
                first = str(error).strip().partition("\n")[0]
                messages = [Failed(f"Ray gave the run up: {first}")]
            except OSError as error:
                raise InputError(
                    f"--ray {address}: the machine of the cluster that this process goes by is lost ({error}); call "
                    "the command again, what is done is kept"
                ) from error
            for message in messages:
                yield number, message
    finally:
        if ours:
            ray.shutdown()


def _machines(ray: Any) -> list[dict[str, float]]:
    """What the machines that are there have."""
    return [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]


def _suits(machines: Sequence[Mapping[str, float]], wish: Mapping[str, float]) -> bool:
    """Whether one of the machines has all that a run asks for."""
    return any(all(machine.get(name, 0) >= count for name, count in wish.items()) for machine in machines)


def _knock(address: str) -> None:
    """Raises OSError at once where nobody listens; Ray itself would go on trying for many minutes."""
    host, _, port = address.rpartition("//")[2].partition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


_worker: Worker | None = None  # a Ray worker process serves many runs


def _work(job: Job, tests: Sequence[Test]) -> list[Message]:
    global _worker
    _worker = _worker or Worker()
    return list(_worker.work(job, tests))
