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
class TrainingOutcome:
    """The losses of each step in one process, and the learned tensors or the error."""

    losses: list[dict[str, float]] = field(default_factory=list)
    learned: dict[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None


@dataclass(frozen=True)
class TrainingRequest:
    """A run to train or resume, and where to make it fail."""

    config: TrainConfig
    resumes: bool = False
    devices: int | None = None
    cut_in_epoch: int | None = None
    """All processes fail in this epoch."""
    failing_rank: int | None = None
    """This process fails after its second step."""


def run_training(request: TrainingRequest, backbone: Backbone, rank: int = 0) -> TrainingOutcome:
    """Train or resume in this process."""
    outcome = TrainingOutcome()

    def on_step(step: Step) -> None:
        outcome.losses.append({name: value.item() for name, value in step.terms.items()})
        if step.epoch == request.cut_in_epoch:
            raise InputError("cut")
        if step.step == 2 and rank == request.failing_rank:
            raise InputError(f"process {rank} failed")

    arguments = {"backbone": backbone, "on_step": on_step, "devices": request.devices}
    try:
        run = resume(request.config.output, **arguments) if request.resumes else train(request.config, **arguments)
        outcome.learned = {key: value.clone() for key, value in run.method.state_dict().items()}
    except InputError as error:
        outcome.error = error
    return outcome


class Processes:
    """Several processes, each with a backbone of random weights, that train one run after another."""

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

    def __call__(self, request: TrainingRequest) -> list[TrainingOutcome]:
        """Train or resume in all processes and return the outcome of each."""
        for pipe in self.pipes:
            pipe.send(request)
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
        pipe.send(run_training(pipe.recv(), backbone, rank))
