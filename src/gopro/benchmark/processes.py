"""Runs in several processes of this machine, each with its own backbone. One that dies takes no other with it."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

import torch

from gopro.benchmark.protocols import Job, Test
from gopro.benchmark.worker import Done, Failed, Message, Worker
from gopro.training.launch import end_with_parent

Task = tuple[Job, Sequence[Test]]

TRIES = 2
"""How often a run is begun that takes its process down with it: the first time may have been the system's doing."""


@dataclass
class _Slot:
    """A process, this end of its pipe, and the number of the task it is at."""

    process: SpawnProcess
    pipe: Any  # a Connection, or on Windows its like
    task: int


def in_processes(tasks: Sequence[Task], jobs: int) -> Iterator[tuple[int, Message | None]]:
    """Does the tasks, `jobs` at once, and yields what they say as (number of the task, message), None at its begin."""
    context = multiprocessing.get_context("spawn")
    gpus = _visible_gpus()
    threads = max(1, torch.get_num_threads() // jobs)
    waiting, tries = deque(range(len(tasks))), [0] * len(tasks)
    slots: dict[int, _Slot] = {}
    try:
        while waiting or slots:
            for place in range(jobs):
                if place not in slots and waiting:
                    ours, theirs = context.Pipe()
                    gpu = gpus[place % len(gpus)] if gpus else None
                    process = context.Process(target=_serve, args=(theirs, threads, gpu))
                    process.start()
                    theirs.close()
                    slots[place] = _Slot(process, ours, waiting.popleft())
                    yield from _begin(slots[place], tasks, tries)
            ready = wait([slot.pipe for slot in slots.values()])
            for place, slot in [(place, slot) for place, slot in slots.items() if slot.pipe in ready]:
                try:
                    message: Message = slot.pipe.recv()
                except (EOFError, OSError):  # the latter in the middle of a message
                    slot.process.join()
                    del slots[place]
                    if tries[slot.task] < TRIES:
                        waiting.appendleft(slot.task)
                    else:
                        yield slot.task, Failed(f"its process ended {tries[slot.task]} times: {_end(slot.process)}")
                    continue
                yield slot.task, message
                if isinstance(message, Done | Failed):
                    if waiting:
                        slot.task = waiting.popleft()
                        yield from _begin(slot, tasks, tries)
                    else:
                        with suppress(OSError):  # it has died since
                            slot.pipe.send(None)
                        slot.process.join()
                        del slots[place]
    finally:
        for slot in slots.values():
            slot.process.kill()
            slot.process.join()


def _begin(slot: _Slot, tasks: Sequence[Task], tries: list[int]) -> Iterator[tuple[int, None]]:
    tries[slot.task] += 1
    with suppress(OSError):  # a process that has died is seen at its pipe's end
        slot.pipe.send(tasks[slot.task])
    yield slot.task, None


def _end(process: SpawnProcess) -> str:
    code = process.exitcode or 0
    if code == -signal.SIGKILL:
        return "killed, perhaps for want of memory: use fewer --jobs"
    return f"by signal {-code}" if code < 0 else f"with exit code {code}"


def _visible_gpus() -> list[str]:
    """What CUDA_VISIBLE_DEVICES may name."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def _serve(pipe: Connection, threads: int, gpu: str | None) -> None:
    """What each process does: tasks from the pipe until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that started this one sees to it
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    worker = Worker()
    while (task := pipe.recv()) is not None:
        for message in worker.work(*task):
            pipe.send(message)
