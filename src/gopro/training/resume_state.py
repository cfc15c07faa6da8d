"""What a run that was cut off goes on from: its state after the last finished epoch, and the log up to there."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gopro.data.dataset import Sample
from gopro.distributed import Ranks
from gopro.errors import InputError
from gopro.files import append, save_tensors
from gopro.methods.base import Method
from gopro.runs.run import CONFIG

RESUME, LOG = "resume.safetensors", "log.csv"


@dataclass
class Best:
    """The epoch that was best on the validation images: their accuracy in percent, and what was learned by then."""

    accuracy: float
    learned: dict[str, Tensor]


class Seen(NamedTuple):
    """The images of a run: their names, and what their content is known by.

    Attributes:
        digests: [images, 16], uint8.
    """

    names: tuple[str, ...]
    digests: Tensor

    @staticmethod
    def of(samples: Sequence[Sample]) -> Seen:
        """Those of samples. Raises InputError naming one that cannot be read."""
        digests = b"".join(bytes.fromhex(sample.image.digest()) for sample in samples)
        names = tuple(sample.image.name for sample in samples)
        return Seen(names, torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(len(samples), -1))

    def check(self, earlier: Tensor, path: Path) -> None:
        """That they are those of an earlier part of the run, whose state is in `path`.

        Raises:
            InputError: naming the first image that is another.
        """
        again = f"put the images back as they were, or remove {path} to start anew"
        if earlier.shape != self.digests.shape:
            raise InputError(f"the run began with {len(earlier)} images and now has {len(self.names)}: {again}")
        others = (earlier != self.digests).any(dim=1).nonzero()
        if len(others):
            raise InputError(f"{self.names[int(others[0])]}: the run began with another image here: {again}")


def log_epoch(
    path: Path,
    epoch: int,
    steps: int,
    lrs: list[float],
    losses: list[dict[str, Tensor]],
    seconds: float,
    accuracy: float | None,
) -> None:
    """Appends an epoch's steps, one row each, validation on its last; the one place where losses leave the device."""
    names = list(losses[0])
    values = torch.stack([torch.stack([loss[name].float() for name in names]) for loss in losses]).cpu()
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    if not path.exists():
        writer.writerow(["epoch", "step", "lr", *names, "seconds", *(["val"] if accuracy is not None else [])])
    for i, (lr, row) in enumerate(zip(lrs, values.tolist(), strict=True)):
        val = [] if accuracy is None else ["" if i + 1 < len(lrs) else f"{accuracy:.4f}"]
        figures = [f"{lr:.6g}", *(f"{v:.6g}" for v in row), f"{seconds:.1f}", *val]
        writer.writerow([epoch, epoch * steps + i + 1, *figures])
    append(path, text.getvalue().encode())


def save_state(
    folder: Path,
    method: Method,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    seconds: float,
    skipped: int,
    best: Best | None,
    seen: Seen | None,
) -> None:
    """Writes what a run goes on from after so many epochs, for the log as it is then."""
    tensors = {f"learned.{key}": tensor for key, tensor in method.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": t for key, t in state.items() if isinstance(t, Tensor)}
    log = (folder / LOG).read_bytes()
    said = {"epochs": str(epochs), "seconds": str(seconds), "skipped": str(skipped)}
    said |= {"run": _run(folder), "log": _digest(log), "log_bytes": str(len(log))}
    if best is not None:
        tensors |= {f"best.{key}": tensor for key, tensor in best.learned.items()}
        said["best"] = str(best.accuracy)
    if seen is not None:
        tensors["pictures"] = seen.digests
    save_tensors(folder / RESUME, tensors, said)


def load_state(
    folder: Path, method: Method, optimizer: torch.optim.Optimizer, ranks: Ranks, seen: Seen | None
) -> tuple[int, float, int, Best | None]:
    """Puts the last saved state back, and the log to where it was then.

    Returns: the epochs that are done, the seconds they took, the steps skipped in them, the best of them where one was
    chosen.

    Raises:
        InputError: the state cannot be gone on from, or its images are not those given.
    """
    path = folder / RESUME
    if not path.exists():
        if ranks.is_first:
            _cut_log(folder / LOG, 0, _digest(b""))
        return 0, 0.0, 0, None
    try:
        with safe_open(path, framework="pt", device=str(method.backbone.device)) as file:
            said = file.metadata() or {}
            if said.get("run") != _run(folder):
                raise ValueError(f"it is not of the run that {CONFIG} beside it describes")
            epochs, seconds, skipped = int(said["epochs"]), float(said["seconds"]), int(said["skipped"])
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
            best = Best(float(said["best"]), _under("best.", tensors)) if "best" in said else None
        method.load_state_dict(_under("learned.", tensors))
        state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            if key.startswith("optimizer."):
                _, index, name = key.split(".", 2)
                state.setdefault(int(index), {})[name] = tensor
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
        log_bytes, log, images = int(said["log_bytes"]), said["log"], tensors["pictures"].cpu()
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{path} cannot be gone on from ({first}): remove it to start anew") from error
    if seen is not None:
        seen.check(images, path)
    if ranks.is_first:
        _cut_log(folder / LOG, log_bytes, log)
    return epochs, seconds, skipped, best


def _cut_log(path: Path, size: int, digest: str) -> None:
    """Takes from the log what came after the state that is gone on from.

    Raises:
        InputError: it is not what it was then, or cannot be written.
    """
    try:
        if not path.exists():
            return
        if _digest(path.read_bytes()[:size]) != digest:
            raise InputError(f"{path} is not as the last finished epoch left it: put it back, or remove it to go on")
        if size:
            os.truncate(path, size)
        else:
            path.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be gone on with: {error.strerror}") from error


def _run(folder: Path) -> str:
    """What tells a run from others."""
    path = folder / CONFIG
    return _digest(path.read_bytes() if path.is_file() else b"")


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
