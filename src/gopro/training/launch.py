"""The processes of one run: started here, or found started by torchrun or SLURM, connected, and ended together."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch
import torch.distributed as dist
from lightning_fabric import Fabric
from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]
from torch.distributed.rendezvous import rendezvous

from gopro.distributed import SINGLE_PROCESS, Ranks
from gopro.errors import InputError, ToldElsewhere
from gopro.runs.config import TrainSettings
from gopro.training.devices import OURS, Place, check_cards, make_fabric, own_place, started

FAILURE_GRACE_SECONDS = 10.0
"""Seconds that a process whose run has failed waits to hear why, or that the others have heard."""

_CAME, _WHY, _SAID, _HEARD = "came", "why", "said", "heard"
"""What the processes' common store says: how many have come, and of a failure why, and how many have said or heard."""

TIMEOUT = timedelta(minutes=30)
"""For which a process waits for the others at most: they are equally busy, but one may have more to encode."""


@contextmanager
def together(
    how: TrainSettings, devices: int | None, again: Callable[[], object], advice: str
) -> Iterator[tuple[Fabric, Ranks]]:
    """The device of a run. Where this process is one of several, all of them are inside at the same time, each with its
    own, and where one fails all do, with its reason.

    Args:
        devices: of this machine. None: as many as torchrun or SLURM started processes for, or one; above 1 the other
            processes are started here and end with the block. 1: this process alone, whoever started it.
        again: what those call to come by here too; it must pickle.
        advice: what to do where a process was lost, behind the fact that it was.

    Raises:
        InputError: fewer cards than devices, or other devices than processes; what the others' was, or that one of them
            was lost. In a process that torchrun or SLURM started it is a `ToldElsewhere` if another one has said so.
    """
    if devices is not None and devices < 1:
        raise InputError(f"--devices {devices}: give at least 1")
    place = None if devices == 1 else started()
    if (place is None and (devices or 1) == 1) or (place is not None and place.count == 1):
        yield make_fabric(how), SINGLE_PROCESS
    elif place is None:
        assert devices is not None
        if how.device != "cpu" and torch.cuda.is_available():
            check_cards(devices, torch.cuda.device_count())
        with _threads(how, devices), _Others(devices, again) as others:
            try:
                others.arrive()
                with _group(how, others.place, others.store) as fabric:
                    yield fabric, others.place.ranks
            except RuntimeError as error:
                if reason := others.reason(FAILURE_GRACE_SECONDS if _is_lost(error) else 0):
                    raise InputError(reason if others.why() else f"{reason}; {advice}") from error
                raise
            others.end()
    elif devices not in (None, place.here):
        raise InputError(
            f"--devices {devices}: {place.by} has started {place.here} processes on this machine; leave it out"
        )
    else:
        store = _store(place)
        try:
            with _threads(how, place.here if place.by == OURS else 1), _group(how, place, store) as fabric:
                try:
                    yield fabric, place.ranks
                except BaseException as error:  # said before the others see that this one has gone
                    if (said := _said(error, place, store, advice)) is not error:
                        raise said from error
                    raise
        except BaseException:
            _wait_for_hearers(place, store)
            raise


@contextmanager
def _threads(how: TrainSettings, share: int) -> Iterator[None]:
    """The machine's cores divided among the processes that compute on them."""
    threads = torch.get_num_threads()
    if how.device == "cpu" or not torch.cuda.is_available():
        torch.set_num_threads(max(1, threads // share))
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _group(how: TrainSettings, place: Place, store: Any) -> Iterator[Fabric]:
    """This process's Fabric, connected to the others."""
    fabric = make_fabric(how, place)
    cuda = fabric.device.type == "cuda"
    if cuda:
        torch.cuda.set_device(fabric.device)
    backend, device = ("nccl", fabric.device) if cuda else ("gloo", None)
    try:
        dist.init_process_group(
            backend, store=store, rank=place.rank, world_size=place.count, timeout=TIMEOUT, device_id=device
        )
    except RuntimeError as error:
        raise InputError(f"the {place.count} processes of this run did not all come: {_in_words(error)}") from error
    try:
        yield fabric
    finally:
        dist.destroy_process_group()


def _store(place: Place) -> Any:
    """What the processes know each other by, kept by the first one or by torchrun."""
    url = f"tcp://{place.address}:{place.port}?rank={place.rank}&world_size={place.count}"
    store, _, _ = next(rendezvous(url))
    run = (store.add(_CAME, 1) - 1) // place.count  # torchrun's store outlives a run
    return PrefixStore(f"run {run}", store)


def _said(error: BaseException, place: Place, store: Any, advice: str) -> BaseException:
    """What a process that torchrun or SLURM started fails with: the first to fail says why, the others know it."""
    if isinstance(error, KeyboardInterrupt):
        return error if place.rank == 0 else ToldElsewhere("stopped")
    lost = _is_lost(error)
    if lost and place.by == OURS:  # the first one sees it too, and how they ended
        return ToldElsewhere(advice)
    reason = f"another process of this run was lost; {advice}" if lost else _in_words(error)
    with suppress(RuntimeError):  # the one that kept the store is gone
        if lost and store.check([_WHY]):
            return ToldElsewhere(store.get(_WHY).decode())
        if store.add(_SAID, 1) > 1:
            return ToldElsewhere(reason)
        store.set(_WHY, reason)
    return InputError(reason) if lost else error


def _wait_for_hearers(place: Place, store: Any) -> None:
    """Lets the others ask why, where this process keeps what they ask."""
    with suppress(RuntimeError):
        if place.rank > 0:
            store.add(_HEARD, 1)
        deadline = time.monotonic() + FAILURE_GRACE_SECONDS
        while place.rank == 0 and store.add(_HEARD, 0) < place.count - 1 and time.monotonic() < deadline:
            time.sleep(0.05)


def _in_words(error: BaseException) -> str:
    return str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}".splitlines()[0]


def _is_lost(error: BaseException) -> bool:
    """Whether a collective operation failed because another process has gone."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


class _Others:
    """The other processes of a run that this one, the first, has started on its machine. They end with it."""

    def __init__(self, devices: int, again: Callable[[], object]) -> None:
        self._all = TCPStore("127.0.0.1", 0, devices, is_master=True, wait_for_workers=False)
        self.store = PrefixStore("run 0", self._all)
        self.place = Place(0, devices, 0, devices, "127.0.0.1", self._all.port, OURS)
        context = multiprocessing.get_context("spawn")
        self.processes: list[SpawnProcess] = []
        for rank in range(1, devices):
            place = replace(self.place, rank=rank, local_rank=rank)
            self.processes.append(context.Process(target=_be, args=(place, again)))

    def __enter__(self) -> _Others:
        for process in self.processes:
            process.start()
        self._all.add(_CAME, 1)
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def arrive(self) -> None:
        """Waits until all are there. Raises DistError where one has ended before."""
        while self._all.add(_CAME, 0) < self.place.count:
            if wait([process.sentinel for process in self.processes], timeout=0.1):
                raise dist.DistError("a process ended before it began")

    def end(self) -> None:
        """Waits until all have ended, for what they have still to do."""
        deadline = time.monotonic() + FAILURE_GRACE_SECONDS
        for process in self.processes:
            process.join(max(0.0, deadline - time.monotonic()))

    def reason(self, patience: float) -> str | None:
        """Why another one has failed, if one does within so many seconds."""
        ended = wait([process.sentinel for process in self.processes], patience)
        if why := self.why():
            return why
        for number, process in enumerate(self.processes, start=2):
            if process.sentinel in ended:
                process.join()  # what tells of its end is closed a moment before how it ended is known
            if (code := process.exitcode) is not None and code != 0:
                end = f"by signal {-code}" if code < 0 else f"with exit code {code}"
                return f"process {number} of {self.place.count} ended {end}"
        return None

    def why(self) -> str | None:
        """What one of the others has said."""
        return self.store.get(_WHY).decode() if self.store.check([_WHY]) else None


def _be(place: Place, again: Callable[[], object]) -> None:
    """What each of the other processes does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first one sees to it
    threading.Thread(target=end_with_parent, daemon=True).start()
    own_place.set(place)
    try:
        again()
    except InputError:  # the first one says it
        sys.exit(2)


def end_with_parent() -> None:
    """Ends this process when the one that started it ends: what a killed one leaves must not go on writing to a folder
    that the next takes up."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
