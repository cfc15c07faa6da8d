"""Runs in several processes of this machine, each with a backbone of its own, so that one crash costs no other run."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from gopro.benchmark.worker import Message, RunFailed, RunFinished, Task, Worker
from gopro.training.launch import end_with_parent

ATTEMPTS = 2
"""Starts of a run whose process dies: the first death may be the system's doing, the second is the run's."""


def run_in_processes(tasks: Sequence[Task], count: int) -> Iterator[tuple[int, Message]]:
    """Do the tasks in `count` processes at once, and yield each message with the number of its task.

    A task whose process dies is started once more, from its last finished epoch.
    """
    gpus = _visible_gpus()
    threads = max(1, torch.get_num_threads() // count)
    waiting, attempts = deque(range(len(tasks))), [0] * len(tasks)
    workers: dict[int, _WorkerProcess] = {}  # by slot, 0 to count - 1; a slot stands for one GPU

    def assign_next(worker: _WorkerProcess) -> None:
        number = waiting.popleft()
        attempts[number] += 1
        worker.assign(number, tasks[number])

    try:
        while waiting or workers:
            for slot in range(count):
                if slot not in workers and waiting:
                    workers[slot] = _WorkerProcess(threads, gpus[slot % len(gpus)] if gpus else None)
                    assign_next(workers[slot])
            ready = wait([worker.pipe for worker in workers.values()])
            for slot, worker in [(slot, worker) for slot, worker in workers.items() if worker.pipe in ready]:
                try:
                    message: Message = worker.pipe.recv()
                except (EOFError, OSError):  # it has died; OSError in the middle of a message
                    del workers[slot]
                    reason = worker.wait_for_end()
                    if attempts[worker.task] < ATTEMPTS:
                        waiting.appendleft(worker.task)
                    else:
                        yield worker.task, RunFailed(f"its process ended {ATTEMPTS} times: {reason}")
                    continue
                yield worker.task, message
                if isinstance(message, RunFinished | RunFailed):
                    if waiting:
                        assign_next(worker)
                    else:
                        del workers[slot]
                        worker.finish()
    finally:
        for worker in workers.values():
            worker.kill()


class _WorkerProcess:
    """A process that does one task after another.

    Attributes:
        pipe: this end of the pipe that tasks go out and messages come in by.
        task: number of the task that it is doing.
    """

    def __init__(self, threads: int, gpu: str | None):
        context = multiprocessing.get_context("spawn")
        # A Connection, or on Windows a PipeConnection, which the type checker does not know to be alike.
        self.pipe: Any
        self.pipe, theirs = context.Pipe()
        self.task = -1
        self._process = context.Process(target=_serve, args=(theirs, threads, gpu))
        self._process.start()
        theirs.close()

    def assign(self, number: int, task: Task) -> None:
        self.task = number
        self._send(task)

    def finish(self) -> None:
        """Tell the process that there are no more tasks, and wait for its end."""
        self._send(None)
        self._process.join()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def wait_for_end(self) -> str:
        """Wait for a process that has died, and return why it did."""
        self._process.join()
        code = self._process.exitcode or 0
        if code == -signal.SIGKILL:
            return "killed, perhaps for lack of memory: use fewer --jobs"
        return f"by signal {-code}" if code < 0 else f"with exit code {code}"

    def _send(self, task: Task | None) -> None:
        with suppress(OSError):  # a process that has died is noticed when its pipe is read
            self.pipe.send(task)


def _visible_gpus() -> list[str]:
    """Return the values of CUDA_VISIBLE_DEVICES that select one GPU each."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(i) for i in range(torch.cuda.device_count())]


def _serve(pipe: Connection, threads: int, gpu: str | None) -> None:
    """Do the tasks that arrive by the pipe until None arrives; the main function of each process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Ctrl-C the parent ends this process
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    worker = Worker()
    while (task := pipe.recv()) is not None:
        for message in worker.work(*task):
            pipe.send(message)
