"""Runs on a Ray cluster. If a machine is lost, its run starts again on another, from its last finished epoch."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gopro.benchmark.protocols import PlannedRun, PlannedTest
from gopro.benchmark.worker import Message, RunFailed, RunStarted, Task, Worker
from gopro.errors import InputError

RETRIES = 3
"""Times that Ray starts a run again whose worker process or machine was lost."""
POLL_SECONDS = 5.0
"""Time between two checks of the cluster's machines while no run ends."""
GIVE_UP_SECONDS = 300.0
"""Time without a suitable machine after which the remaining runs fail."""


def run_on_cluster(tasks: Sequence[Task], address: str) -> Iterator[tuple[int, Message]]:
    """Do the tasks on the Ray cluster at `address`, and yield each message with the number of its task.

    A task asks for one CPU for itself, one for each of its data-loading processes, and a GPU, unless its device is the
    CPU or no machine has a GPU. Its messages arrive together when it has ended. The package must be installed on the
    cluster's machines, and data and output folders must have the same paths there.

    Raises:
        InputError: Ray is not installed, the cluster cannot be reached or is lost, or none of its machines has the CPUs
            and GPUs that a run needs.
    """
    try:
        import ray
        from ray.exceptions import RayError
    except ImportError as error:
        raise InputError("--ray needs Ray: pip install '.[ray]'") from error
    connected_here = not ray.is_initialized()
    if connected_here:
        try:
            _check_listening(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError) as error:
            raise InputError(f"--ray {address}: no cluster answers there ({_first_line(error)})") from error
    try:
        needs = _needs(ray, tasks[0][0], address)
        remote: Any = ray.remote(num_cpus=needs["CPU"], num_gpus=needs["GPU"], max_retries=RETRIES)(_work)
        pending = {remote.remote(*task): number for number, task in enumerate(tasks)}
        last_alive = time.monotonic()
        while pending:
            ended, _ = ray.wait(list(pending), timeout=POLL_SECONDS)
            if ended or _any_suits(_machines(ray), needs):
                last_alive = time.monotonic()
            elif time.monotonic() - last_alive > GIVE_UP_SECONDS:  # Ray itself would wait for ever
                for number in pending.values():
                    yield number, RunFailed("the cluster has lost all machines that could do it")
                return
            if not ended:
                continue
            number = pending.pop(ended[0])
            try:
                messages: list[Message] = ray.get(ended[0])
            except RayError as error:  # before OSError, as an exception raised within a task is an instance of both
                messages = [RunFailed(f"Ray gave the run up: {_first_line(error)}")]
            except OSError as error:
                raise InputError(
                    f"--ray {address}: the connection to the cluster is lost ({error}); run the same command again to "
                    "do what is missing"
                ) from error
            for message in messages:
                yield number, message
    finally:
        if connected_here:
            ray.shutdown()


def _needs(ray: Any, run: PlannedRun, address: str) -> dict[str, int]:
    """Return the CPUs and GPUs to ask for per run.

    Raises:
        InputError: no machine of the cluster has them.
    """
    machines = _machines(ray)
    any_gpu = any("GPU" in machine for machine in machines)
    needs = {"CPU": 1 + run.train.workers, "GPU": int(run.train.device != "cpu" and any_gpu)}
    if not _any_suits(machines, needs):
        raise InputError(
            f"--ray {address}: a run needs {needs['CPU']} CPUs and {needs['GPU']} GPUs on one machine, and no machine "
            "has them: use fewer --workers, or --device cpu"
        )
    return needs


def _machines(ray: Any) -> list[dict[str, float]]:
    """Return the resources of each machine that is alive."""
    return [machine["Resources"] for machine in ray.nodes() if machine["Alive"]]


def _any_suits(machines: Sequence[Mapping[str, float]], needs: Mapping[str, float]) -> bool:
    return any(all(machine.get(name, 0) >= count for name, count in needs.items()) for machine in machines)


def _check_listening(address: str) -> None:
    """Raise OSError at once if nothing listens at the address; Ray itself keeps trying for minutes."""
    host, _, port = address.rpartition("//")[2].partition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


_worker: Worker | None = None  # one per Ray worker process, which does many runs


def _work(run: PlannedRun, tests: Sequence[PlannedTest]) -> list[Message]:
    global _worker
    _worker = _worker or Worker()
    # The start is left out: this list arrives when the run has ended.
    return [message for message in _worker.work(run, tests) if not isinstance(message, RunStarted)]
