"""Where a run computes: on one device, or on several, each with a process of its own."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from gopro.distributed import Ranks
from gopro.errors import InputError
from gopro.runs.config import TrainSettings

# Fabric would advise every run on a card to round its products; fp32 is fp32, and bf16 is there for who wants less.
logging.getLogger("lightning_fabric.utilities.rank_zero").addFilter(
    lambda record: "set_float32_matmul_precision" not in record.getMessage()
)

OURS = "us"
"""Who started the processes that torchrun and SLURM did not: `gopro.training.launch`."""


@dataclass(frozen=True)
class Place:
    """Which of a run's processes this is.

    Attributes:
        rank: among all, from 0.
        count: of all.
        local_rank: among those on this machine, whose number is `here`.
        address, port: where the first one listens.
        by: who started them: torchrun, SLURM or `OURS`.
    """

    rank: int
    count: int
    local_rank: int
    here: int
    address: str
    port: int
    by: str

    @property
    def ranks(self) -> Ranks:
        return Ranks(self.rank, self.count)


own_place: ContextVar[Place | None] = ContextVar("own_place", default=None)
"""Of a process that `gopro.training.launch` has started."""


def started(environment: Mapping[str, str] = os.environ) -> Place | None:
    """This process's place if it was started as one of several; None if it is on its own.

    Under SLURM that is within `srun`; a program that a batch script runs by itself is on its own.

    Raises:
        InputError: SLURM does not say how many processes each machine has.
    """
    if (place := own_place.get()) is not None:
        return place
    if "TORCHELASTIC_RUN_ID" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
        rank, count, local_rank, here, port = (int(environment[name]) for name in names)
        return Place(rank, count, local_rank, here, environment["MASTER_ADDR"], port, "torchrun")
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        try:
            slurm = SLURMEnvironment()
        except RuntimeError as error:
            raise InputError("srun: say how many processes each machine has, by --ntasks-per-node") from error
        here = int(environment["SLURM_NTASKS_PER_NODE"])
        rank, count, local_rank = slurm.global_rank(), slurm.world_size(), slurm.local_rank()
        return Place(rank, count, local_rank, here, slurm.main_address, slurm.main_port, "SLURM")
    return None


def count_processes(devices: int | None) -> int:
    """How many processes `together` will be of."""
    place = None if devices == 1 else started()
    return place.count if place is not None else devices or 1


def make_fabric(how: TrainSettings, place: Place | None = None) -> Fabric:
    """Device and precision for a run, or for one of its processes.

    Raises:
        InputError: cuda is asked for where there is none, or fewer cards than processes.
    """
    if how.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda: torch finds none here; use --device cpu")
    kind = "cuda" if how.device != "cpu" and torch.cuda.is_available() else "cpu"
    # Both as plugins: Fabric prints a line for each time that it is told a precision by name, and would take a batch
    # script's SLURM for a reason to look for other processes.
    plugins: list[Any] = [LightningEnvironment()]
    if how.precision == "bf16":
        plugins.append(MixedPrecision("bf16-mixed", device=kind))
    devices = 1 if place is None or kind == "cpu" else [_card(place)]
    return Fabric(accelerator=kind, devices=devices, plugins=plugins)


def _card(place: Place) -> int:
    """The number of this process's card."""
    cards = torch.cuda.device_count()
    if cards == 1 and place.by == "SLURM":  # which shows each of its processes the card that is meant for it
        return 0
    check_cards(place.here, cards)
    return place.local_rank


def check_cards(devices: int, cards: int) -> None:
    if devices > cards:
        raise InputError(f"--devices {devices}: torch finds {cards} here; use fewer, or --device cpu")
