"""The authors' repositories as the recording tools need them: stubs for Dassl, its optimiser, schedule and settings."""

from __future__ import annotations

import argparse
import sys
from ast import literal_eval
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from tests.support.golden import GOLDEN, drawn_parameters

STACKED = ("deep", "image")
"""Our parameters that are one tensor where the authors' are one for each layer."""


@dataclass(frozen=True)
class Authors:
    """A trainer of the authors with its model.

    Attributes:
        learned: the parameters it learns, by our names or theirs; several of theirs are one of ours, see `STACKED`.
    """

    trainer: Any
    model: Any
    cfg: Any
    learned: dict[str, list[nn.Parameter]]

    def tensors(self, values: str | None = None) -> dict[str, Tensor]:
        """Return copies of the learned parameters, or of an attribute of theirs."""
        copies = {}
        for name, group in self.learned.items():
            got = [p if values is None else getattr(p, values) for p in group]
            copies[name] = torch.stack(got) if name in STACKED else got[0]
        return {name: tensor.detach().clone() for name, tensor in copies.items()}

    @torch.no_grad()
    def draw_parameters(self) -> None:
        """Set the learned parameters to those of `drawn_parameters`."""
        shapes = {name: tensor.shape for name, tensor in self.tensors().items()}
        for name, values in drawn_parameters(shapes).items():
            for parameter, value in zip(self.learned[name], values if name in STACKED else [values], strict=True):
                parameter.copy_(value)


def named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors with a prefix and a dot before their names."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def recording_arguments(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the arguments of a tool that records one repository."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, required=True, help="folder that holds clip/ and trainers/")
    parser.add_argument("--output", type=Path, default=GOLDEN, help="folder to write to")
    return parser


def use_repository(repository: Path, dassl: Path | None = None) -> None:
    """Make the authors' modules importable, with stubs for Dassl, and keep them on the CPU; see the functions below."""
    sys.path.insert(0, str(repository))
    install_dassl_stubs(dassl)
    stay_on_the_cpu()


def stay_on_the_cpu() -> None:
    """Make the calls that move tensors or models to a GPU or to fp16 do nothing."""
    for kind in (Tensor, nn.Module):
        kind.cuda = kind.half = lambda self: self  # pyright: ignore


def install_dassl_stubs(dassl: Path | None = None) -> None:
    """Install stubs of the Dassl modules that the trainers import, enough for a training step.

    Args:
        dassl: the repository of Dassl, whose own optimisers, schedules and default settings are then imported.
    """

    class TrainerX:
        def model_backward_and_update(self, loss: Tensor) -> None:
            self.optim.zero_grad()
            loss.backward()
            self.optim.step()

        def update_lr(self) -> None:
            self.sched.step()

    names: dict[str, dict[str, Any]] = {
        "engine": {"TRAINER_REGISTRY": SimpleNamespace(register=lambda: lambda kind: kind), "TrainerX": TrainerX},
        "metrics": {"compute_accuracy": lambda output, label: [torch.zeros(1)]},
        "utils": {"load_pretrained_weights": None, "load_checkpoint": None},
    }
    package = sys.modules["dassl"] = ModuleType("dassl")
    if dassl is None:
        names["optim"] = {"build_optimizer": None, "build_lr_scheduler": None}
    else:
        package.__path__ = [str(dassl / "dassl")]
        sys.modules["yacs"], sys.modules["yacs.config"] = ModuleType("yacs"), ModuleType("yacs.config")
        sys.modules["yacs.config"].CfgNode = SimpleNamespace  # pyright: ignore[reportAttributeAccessIssue]
        _accept_verbose()
    for name, contents in names.items():
        module = sys.modules[f"dassl.{name}"] = ModuleType(f"dassl.{name}")
        vars(module).update(contents)


def _accept_verbose() -> None:
    """Let torch's schedules take the argument `verbose`, which Dassl passes and torch no longer has."""
    plain: Any = torch.optim.lr_scheduler.LRScheduler

    class Scheduler(plain):
        def __init__(self, optimizer: Any, last_epoch: int = -1, verbose: bool = False):
            super().__init__(optimizer, last_epoch)

    torch.optim.lr_scheduler._LRScheduler = Scheduler  # pyright: ignore[reportAttributeAccessIssue]


def read_settings(file: Path) -> Any:
    """Return Dassl's default settings with a trainer's file over them, as `train.py` reads them.

    Dassl's stubs must be installed with its repository.
    """
    for name in ("dassl.config.defaults", "dassl.config"):
        sys.modules.pop(name, None)  # its defaults are one object, which the settings of another file have changed
    settings = import_module("dassl.config.defaults")._C
    _merge(settings, yaml.safe_load(file.read_text()))
    return settings


def _merge(settings: Any, changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if isinstance(value, dict):
            if not hasattr(settings, name):
                setattr(settings, name, SimpleNamespace())
            _merge(getattr(settings, name), value)
        else:
            setattr(settings, name, _decoded(value))


def _decoded(value: Any) -> Any:
    """Return a string that is a Python literal, as in `1e-5` or `(0.5, 1)`, as its value, as yacs does."""
    try:
        return literal_eval(value) if isinstance(value, str) else value
    except (ValueError, SyntaxError):
        return value
