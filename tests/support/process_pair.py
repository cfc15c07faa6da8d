"""Processes as torchrun starts them, which train together one run after another."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.runs.config import TrainConfig
from gopro.training.progress import Step
from gopro.training.train import resume, train
from tests.conftest import make_tiny


@dataclass
class Trained:
    """A run as one process saw it: the losses of each step, the learned tensors, or the error that ended it."""

    losses: list[dict[str, float]] = field(default_factory=list)
    learned: dict[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None


@dataclass(frozen=True)
class Job:
    """What to train, and where to fail."""

    config: TrainConfig
    resumes: bool = False
    devices: int | None = None
    cut_in_epoch: int | None = None
    """All processes fail in this epoch."""
    rank_that_fails: int | None = None
    """This process fails after its second step."""


def do(job: Job, backbone: Backbone, rank: int = 0) -> Trained:
    """Do a job in this process."""
    trained = Trained()

    def on_step(step: Step) -> None:
        trained.losses.append({name: value.item() for name, value in step.terms.items()})
        if step.epoch == job.cut_in_epoch:
            raise InputError("cut")
        if step.step == 2 and rank == job.rank_that_fails:
            raise InputError(f"what process {rank} cannot do")

    arguments = {"backbone": backbone, "on_step": on_step, "devices": job.devices}
    try:
        run = resume(job.config.output, **arguments) if job.resumes else train(job.config, **arguments)
        trained.learned = {key: value.clone() for key, value in run.method.state_dict().items()}
    except InputError as error:
        trained.error = error
    return trained


class Processes:
    """Several processes, each with a backbone of random weights, that do one job after another."""

    def __init__(self, count: int) -> None:
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun holds the store
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, count, self.store.port), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def __call__(self, job: Job) -> list[Trained]:
        """Do a job in all processes and return the run as each of them saw it."""
        for pipe in self.pipes:
            pipe.send(job)
        for pipe in self.pipes:
            assert pipe.poll(180), "a process hangs"
        return [pipe.recv() for pipe in self.pipes]

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def _serve(pipe: Any, rank: int, count: int, port: int) -> None:
    torch.set_num_threads(1)
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    backbone = make_tiny()
    while True:
        pipe.send(do(pipe.recv(), backbone, rank))
