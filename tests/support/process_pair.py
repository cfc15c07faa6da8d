"""Processes as torchrun starts them, that train together what they are told."""

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
    """What a process saw of a run: the losses of each step, what was learned in the end, or why it did not end."""

    losses: list[dict[str, float]] = field(default_factory=list)
    learned: dict[str, Tensor] = field(default_factory=dict)
    error: Exception | None = None


@dataclass(frozen=True)
class Wish:
    """What to train, and where to stop."""

    config: TrainConfig
    going_on: bool = False
    devices: int | None = None
    cut_in_epoch: int | None = None
    """In which all processes fail."""
    rank_that_fails: int | None = None
    """After its second step."""


def follow(wish: Wish, backbone: Backbone, rank: int = 0) -> Trained:
    """Trains in this process."""
    trained = Trained()

    def on_step(step: Step) -> None:
        trained.losses.append({name: value.item() for name, value in step.terms.items()})
        if step.epoch == wish.cut_in_epoch:
            raise InputError("cut")
        if step.step == 2 and rank == wish.rank_that_fails:
            raise InputError(f"what process {rank} cannot do")

    how = {"backbone": backbone, "on_step": on_step, "devices": wish.devices}
    try:
        run = resume(wish.config.output, **how) if wish.going_on else train(wish.config, **how)
        trained.learned = {key: value.clone() for key, value in run.method.state_dict().items()}
    except InputError as error:
        trained.error = error
    return trained


class Processes:
    """As many as wanted, each with a backbone of random weights, for one run after the other."""

    def __init__(self, count: int) -> None:
        self.store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # torchrun's part
        context = multiprocessing.get_context("spawn")
        self.pipes, self.processes = [], []
        for rank in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, rank, count, self.store.port), daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)

    def __call__(self, wish: Wish) -> list[Trained]:
        """What each process saw."""
        for pipe in self.pipes:
            pipe.send(wish)
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
        pipe.send(follow(pipe.recv(), backbone, rank))
