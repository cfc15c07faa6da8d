"""The device a process of a run computes on, and which of the run's processes it is."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment

from gopro.clip.device import find_device
from gopro.distributed import SINGLE_PROCESS, Ranks
from gopro.errors import InputError
from gopro.runs.config import TrainSettings

# On a GPU, Fabric would advise every run to compute fp32 products in lower precision. Here fp32 means fp32; a user who
# wants less sets bf16.
logging.getLogger("lightning_fabric.utilities.rank_zero").addFilter(
    lambda record: "set_float32_matmul_precision" not in record.getMessage()
)


@dataclass(frozen=True)
class Runtime:
    """The device of this process and its rank among the processes of the run."""

    fabric: Fabric
    ranks: Ranks = SINGLE_PROCESS

    @property
    def device(self) -> torch.device:
        return self.fabric.device


@dataclass(frozen=True)
class ProcessInfo:
    """One of the several processes of a run.

    Attributes:
        rank: from 0, over all machines.
        count: number of processes on all machines.
        local_rank: from 0, on this machine.
        local_count: number of processes on this machine.
        address, port: where rank 0 listens.
        launcher: who started the process; "gopro" for `gopro.training.launch`.
    """

    rank: int
    count: int
    local_rank: int
    local_count: int
    address: str
    port: int
    launcher: str

    @property
    def ranks(self) -> Ranks:
        return Ranks(self.rank, self.count)

    @property
    def is_ours(self) -> bool:
        """True if `gopro.training.launch` started the process, not torchrun or SLURM."""
        return self.launcher == "gopro"


def find_process(environment: Mapping[str, str] = os.environ) -> ProcessInfo | None:
    """Return which of the processes that torchrun or srun started this one is; None if it was started by itself.

    A program that a SLURM batch script runs without `srun` was started by itself.

    Raises:
        InputError: SLURM does not say how many processes each machine has.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT")
        rank, count, local_rank, local_count, port = (int(environment[name]) for name in names)
        return ProcessInfo(rank, count, local_rank, local_count, environment["MASTER_ADDR"], port, "torchrun")
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        try:
            slurm = SLURMEnvironment()
        except RuntimeError as error:
            raise InputError("srun: give --ntasks-per-node, the number of processes on each machine") from error
        local_count = int(environment["SLURM_NTASKS_PER_NODE"])
        rank, count, local_rank = slurm.global_rank(), slurm.world_size(), slurm.local_rank()
        return ProcessInfo(rank, count, local_rank, local_count, slurm.main_address, slurm.main_port, "SLURM")
    return None


def device_type(settings: TrainSettings) -> Literal["cpu", "cuda"]:
    """Return the kind of device that a run computes on."""
    return "cuda" if settings.device != "cpu" and torch.cuda.is_available() else "cpu"


def make_fabric(settings: TrainSettings, process: ProcessInfo | None = None) -> Fabric:
    """Make the Fabric with the device and the precision of a run, or of one of its processes.

    Raises:
        InputError: the settings ask for CUDA and there is none, or there are fewer GPUs than processes.
    """
    find_device(settings.device)
    kind = device_type(settings)
    # Both are plugins: Fabric prints a line each time a precision is given by name, and inside a SLURM batch script it
    # would wait for other processes if it were left to find its environment.
    plugins: list[Any] = [LightningEnvironment()]
    if settings.precision == "bf16":
        plugins.append(MixedPrecision("bf16-mixed", device=kind))
    devices = 1 if process is None or kind == "cpu" else [_gpu_index(process)]
    return Fabric(accelerator=kind, devices=devices, plugins=plugins)


def _gpu_index(process: ProcessInfo) -> int:
    gpus = torch.cuda.device_count()
    if gpus == 1 and process.launcher == "SLURM":  # SLURM shows each process only the GPU that is meant for it
        return 0
    check_gpus(process.local_count, gpus)
    return process.local_rank


def check_gpus(devices: int, gpus: int) -> None:
    """Raise InputError if there are fewer GPUs than devices asked for."""
    if devices > gpus:
        raise InputError(f"--devices {devices}: torch finds {gpus} GPUs on this machine; use fewer, or --device cpu")
