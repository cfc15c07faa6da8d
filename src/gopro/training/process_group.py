"""The connection between the processes of a run, and the relay that reports to all of them why one has failed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from gopro.errors import InputError, OtherRankFailed
from gopro.runs.config import TrainSettings
from gopro.training.devices import ProcessInfo, Runtime, device_type, make_fabric

FAILURE_GRACE_SECONDS = 10.0
"""Seconds that a process of a failed run waits to read the reason, or for the others to read it."""

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""Longest wait for the others in a collective operation. All have the same work, but one may have more views to encode
before the first step."""

ARRIVED, _REASON, _REPORTS, _READERS = "arrived", "reason", "reports", "readers"
"""Keys of the store that the processes share: how many have arrived; why the run failed, how many processes have tried
to report a reason, and how many have read it."""


@contextmanager
def share_cores(settings: TrainSettings, processes: int) -> Iterator[None]:
    """Divide torch's threads among the processes on this machine if they compute on its CPU."""
    threads = torch.get_num_threads()
    if device_type(settings) == "cpu":
        torch.set_num_threads(max(1, threads // processes))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def process_group(settings: TrainSettings, process: ProcessInfo, store: Store) -> Iterator[Runtime]:
    """Connect this process to the others, by NCCL on GPUs and by gloo on CPUs.

    Raises:
        InputError: not all processes have connected within `COLLECTIVE_TIMEOUT`.
    """
    fabric = make_fabric(settings, process)
    backend, device = "gloo", None
    if fabric.device.type == "cuda":
        torch.cuda.set_device(fabric.device)
        backend, device = "nccl", fabric.device
    try:
        dist.init_process_group(
            backend,
            store=store,
            rank=process.rank,
            world_size=process.count,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=device,
        )
    except RuntimeError as error:
        raise InputError(f"not all {process.count} processes of this run have connected: {_one_line(error)}") from error
    try:
        yield Runtime(fabric, process.ranks)
    finally:
        dist.destroy_process_group()


def open_store(process: ProcessInfo) -> Store:
    """Open the key-value store that the processes of a run share. Rank 0 or torchrun holds it."""
    url = f"tcp://{process.address}:{process.port}?rank={process.rank}&world_size={process.count}"
    store, _, _ = next(rendezvous(url))
    # torchrun's store outlives a run: of two processes, arrivals 1 and 2 belong to run 0, arrivals 3 and 4 to run 1.
    run = (store.add(ARRIVED, 1) - 1) // process.count
    return PrefixStore(f"run {run}", store)


def is_lost_process(error: BaseException) -> bool:
    """Return whether a collective operation failed because another process is gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


class FailureRelay:
    """Lets exactly one process of a failed run report the reason and makes it known to all.

    Args:
        process: this process.
        store: the store that all processes share.
        advice: how to resume the run, added to a message that a process was lost.
    """

    def __init__(self, process: ProcessInfo, store: Store, advice: str):
        self.process, self.store, self.advice = process, store, advice

    def reason(self) -> str | None:
        """Return why the run failed if a process has reported it."""
        return self.store.get(_REASON).decode() if self.store.check([_REASON]) else None

    def report(self, error: BaseException) -> BaseException:
        """Make an error of this process known to the others.

        Returns:
            The exception to raise: `error` itself if this process is the first to fail, otherwise an `OtherRankFailed`
            with the first one's reason. A failed collective operation becomes an `InputError` with advice.
        """
        if isinstance(error, KeyboardInterrupt):
            return error if self.process.rank == 0 else OtherRankFailed("stopped")
        lost = is_lost_process(error)
        if lost and self.process.is_ours:  # rank 0 notices too, and it also knows how the lost process ended
            return OtherRankFailed(self.advice)
        reason = f"another process of this run was lost; {self.advice}" if lost else _one_line(error)
        with suppress(RuntimeError):  # the process that holds the store is gone
            if lost and (earlier := self.reason()):
                return OtherRankFailed(earlier)
            if self.store.add(_REPORTS, 1) > 1:
                return OtherRankFailed(reason)
            self.store.set(_REASON, reason)
        return InputError(reason) if lost else error

    def wait_for_readers(self) -> None:
        """Keep the store, if this process holds it, until the others have read the reason."""
        with suppress(RuntimeError):
            if self.process.rank > 0:
                self.store.add(_READERS, 1)
                return
            deadline = time.monotonic() + FAILURE_GRACE_SECONDS
            while self.store.add(_READERS, 0) < self.process.count - 1 and time.monotonic() < deadline:
                time.sleep(0.05)


def _one_line(error: BaseException) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}".splitlines()[0]
