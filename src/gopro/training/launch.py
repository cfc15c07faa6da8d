"""The launcher: runs a training run on one device, or on several with a process for each.

Neither of Fabric's launchers (2.6) would do. The default one starts the caller's whole script again in each process,
and when a child ends with an error it kills rank 0 too, which then cannot say why. The spawning one runs rank 0 in a
child as well, so the caller's progress bar and backbone would have to be pickled. docs/devices.md describes the
behaviour that this module provides instead.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import TypeVar

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

from gopro.errors import InputError
from gopro.runs.config import TrainSettings
from gopro.training.devices import ProcessInfo, Runtime, check_gpus, device_type, find_process, make_fabric
from gopro.training.process_group import (
    ARRIVED,
    FAILURE_GRACE_SECONDS,
    FailureRelay,
    is_lost_process,
    open_store,
    process_group,
    share_cores,
)

T = TypeVar("T")


def count_processes(devices: int | None) -> int:
    """Return how many processes `launch` will run on."""
    process = None if devices == 1 else find_process()
    return process.count if process is not None else devices or 1


def launch(
    main: Callable[[Runtime], T],
    entry_point: Callable[[Runtime], object],
    settings: TrainSettings,
    devices: int | None,
    advice: str,
) -> T:
    """Call `main` on the device of this process, together with the other processes of the run if there are several.

    If one process fails, all of them end, and one reports the reason.

    Args:
        main: what this process does.
        entry_point: picklable function that each process started here calls in place of `main` to join the run.
        settings: device and precision.
        devices: devices of this machine to use. Above 1, this process is rank 0 and starts the others. 1: only this
            process, whoever started it. None: one device, or all processes that torchrun or SLURM started.
        advice: how to resume the run, added to a message that a process was lost.

    Returns:
        The result of `main`.

    Raises:
        InputError: there are fewer GPUs than devices; torchrun or SLURM started another number of processes; another
            process failed or was lost. `OtherRankFailed` if that process has printed the reason itself.
    """
    if devices is not None and devices < 1:
        raise InputError(f"--devices {devices}: give at least 1")
    process = None if devices == 1 else find_process()
    if process is None and devices is not None and devices > 1:
        return _run_as_first(main, entry_point, settings, devices, advice)
    if process is None or process.count == 1:
        return main(Runtime(make_fabric(settings)))
    if devices not in (None, process.local_count):
        raise InputError(
            f"--devices {devices}: {process.launcher} has started {process.local_count} processes on this machine; "
            "leave --devices out"
        )
    return _run_as(process, main, settings, advice)


def _run_as(process: ProcessInfo, main: Callable[[Runtime], T], settings: TrainSettings, advice: str) -> T:
    """Call `main` as one of several processes that are running already."""
    relay = FailureRelay(process, open_store(process), advice)
    cores_shared_by = process.local_count if process.is_ours else 1  # torchrun and SLURM have divided the cores
    try:
        with (
            share_cores(settings, cores_shared_by),
            process_group(settings, process, relay.store) as runtime,
        ):
            try:
                return main(runtime)
            except BaseException as error:  # reported before the group closes and the others see this process gone
                reported = relay.report(error)
                if reported is not error:
                    raise reported from error
                raise
    except BaseException:
        relay.wait_for_readers()
        raise


def _run_as_first(
    main: Callable[[Runtime], T],
    entry_point: Callable[[Runtime], object],
    settings: TrainSettings,
    devices: int,
    advice: str,
) -> T:
    """Start the other processes on this machine and call `main` as rank 0."""
    if device_type(settings) == "cuda":
        check_gpus(devices, torch.cuda.device_count())
    child = partial(_run_as_child, entry_point=entry_point, settings=settings, advice=advice)
    with share_cores(settings, devices), SpawnedProcesses(devices, child) as others:
        try:
            others.wait_for_arrival()
            with process_group(settings, others.first, others.store) as runtime:
                result = main(runtime)
        except RuntimeError as error:
            if is_lost_process(error):
                others.wait_for_an_end(FAILURE_GRACE_SECONDS)
            if reason := FailureRelay(others.first, others.store, advice).reason():
                raise InputError(reason) from error
            if lost := others.describe_lost():
                raise InputError(f"{lost}; {advice}") from error
            raise
        others.join()
        return result


def _run_as_child(
    process: ProcessInfo, entry_point: Callable[[Runtime], object], settings: TrainSettings, advice: str
) -> None:
    """Run a process that `SpawnedProcesses` has started."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; rank 0 ends the others
    threading.Thread(target=end_with_parent, daemon=True).start()
    try:
        _run_as(process, entry_point, settings, advice)
    except InputError:  # rank 0 prints the reason
        sys.exit(2)


class SpawnedProcesses:
    """Ranks 1 and above of a run on this machine, started by rank 0. They are killed when the block ends.

    Args:
        count: number of processes, this one included.
        target: picklable function that each of them calls with its own `ProcessInfo`.
    """

    def __init__(self, count: int, target: Callable[[ProcessInfo], object]) -> None:
        self._tcp_store = TCPStore("127.0.0.1", 0, count, is_master=True, wait_for_workers=False)
        self.store = PrefixStore("run 0", self._tcp_store)  # the prefix that `open_store` gives the children
        self.first = ProcessInfo(0, count, 0, count, "127.0.0.1", self._tcp_store.port, "gopro")
        context = multiprocessing.get_context("spawn")
        self.processes: list[SpawnProcess] = []
        for rank in range(1, count):
            process = replace(self.first, rank=rank, local_rank=rank)
            self.processes.append(context.Process(target=target, args=(process,)))

    def __enter__(self) -> SpawnedProcesses:
        for process in self.processes:
            process.start()
        self._tcp_store.add(ARRIVED, 1)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def wait_for_arrival(self) -> None:
        """Wait until all processes have opened the store.

        Raises:
            DistError: a process has ended before that.
        """
        while self._tcp_store.add(ARRIVED, 0) < self.first.count:
            if self.wait_for_an_end(0.1):
                raise dist.DistError("a process ended before it connected")

    def wait_for_an_end(self, seconds: float) -> bool:
        """Wait until a process ends, at most so many seconds. Return whether one has."""
        return bool(wait([process.sentinel for process in self.processes], seconds))

    def join(self) -> None:
        """Give the processes `FAILURE_GRACE_SECONDS` to end by themselves."""
        deadline = time.monotonic() + FAILURE_GRACE_SECONDS
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))

    def describe_lost(self) -> str | None:
        """Say which process has failed and how, for example `process 2 of 2 ended by signal 9`."""
        ended = wait([process.sentinel for process in self.processes], 0)
        for number, process in enumerate(self.processes, start=2):
            if process.sentinel in ended:
                process.join()  # the sentinel closes a moment before the exit code is known
            if (code := process.exitcode) is not None and code != 0:
                end = f"by signal {-code}" if code < 0 else f"with exit code {code}"
                return f"process {number} of {self.first.count} ended {end}"
        return None


def end_with_parent() -> None:
    """End this process when the one that started it ends.

    Otherwise the children of a killed process would go on writing to a folder that the next process works in.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
