"""The state from which an interrupted run resumes: `resume.safetensors` and `log.csv` after the last finished epoch."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gopro.data.dataset import ImageSource
from gopro.distributed import Ranks
from gopro.errors import InputError
from gopro.files import append, save_tensors
from gopro.methods.base import Method
from gopro.runs.run import CONFIG

RESUME, LOG = "resume.safetensors", "log.csv"


class BestEpoch(NamedTuple):
    """The epoch with the highest accuracy on the validation images (in percent), and the state learned by its end."""

    accuracy: float
    learned: dict[str, Tensor]


class ImageDigests(NamedTuple):
    """The names of a run's images and digests of their content.

    Attributes:
        digests: uint8 [images, 16].
    """

    names: tuple[str, ...]
    digests: Tensor

    @staticmethod
    def of(images: Sequence[ImageSource]) -> ImageDigests:
        """Read the images and compute their digests. Raises InputError naming an image that cannot be read."""
        digests = b"".join(bytes.fromhex(image.digest()) for image in images)
        names = tuple(image.name for image in images)
        return ImageDigests(names, torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(len(images), -1))

    def check(self, earlier: Tensor, path: Path) -> None:
        """Check that the run began with the same images.

        Args:
            earlier: the digests at that time, uint8 [images, 16].
            path: the file they were read from.

        Raises:
            InputError: names the first image that has changed.
        """
        advice = f"put the images back as they were, or remove {path} to start from the first epoch"
        if earlier.shape != self.digests.shape:
            raise InputError(f"the run began with {len(earlier)} images and now has {len(self.names)}: {advice}")
        changed = (earlier != self.digests).any(dim=1).nonzero()
        if len(changed):
            raise InputError(f"{self.names[int(changed[0])]}: the run began with another image here: {advice}")


@dataclass
class EpochLog:
    """The batches of an epoch: learning rates and losses, which stay on the device until they are written.

    Attributes:
        epoch: from 0.
    """

    epoch: int
    lrs: list[float] = field(default_factory=list)
    losses: list[dict[str, Tensor]] = field(default_factory=list)

    def add(self, lr: float, losses: dict[str, Tensor]) -> None:
        """Add a batch."""
        self.lrs.append(lr)
        self.losses.append(losses)

    @cached_property
    def batches(self) -> list[dict[str, float]]:
        """The learning rate as `lr` and the losses by name of each batch, read once the epoch is complete."""
        names = list(self.losses[0])
        values = torch.stack([torch.stack([loss[name].float() for name in names]) for loss in self.losses]).cpu()
        return [
            {"lr": lr, **dict(zip(names, row, strict=True))} for lr, row in zip(self.lrs, values.tolist(), strict=True)
        ]

    def append_to(self, path: Path, seconds: float, accuracy: float | None) -> None:
        """Append a row per batch to a CSV file. The accuracy on the validation images stands in the last row."""
        batches = len(self.batches)
        text = io.StringIO(newline="")
        writer = csv.writer(text)
        if not path.exists():
            val = [] if accuracy is None else ["val"]
            writer.writerow(["epoch", "step", *self.batches[0], "seconds", *val])
        for i, batch in enumerate(self.batches):
            val = [] if accuracy is None else ["" if i + 1 < batches else f"{accuracy:.4f}"]
            figures = [*(f"{value:.6g}" for value in batch.values()), f"{seconds:.1f}", *val]
            writer.writerow([self.epoch, self.epoch * batches + i + 1, *figures])
        append(path, text.getvalue().encode())


@dataclass
class ResumeState:
    """The progress of a run, saved after each epoch.

    Attributes:
        folder: the run's folder.
        images: the run's images; None in processes other than the first, which do not save.
        epochs: how many are finished.
        seconds: how long they took.
        skipped: how many of their steps were skipped.
        best: the best epoch so far, if one is chosen by validation images.
    """

    folder: Path
    images: ImageDigests | None
    epochs: int = 0
    seconds: float = 0.0
    skipped: int = 0
    best: BestEpoch | None = None

    @staticmethod
    def open(
        folder: Path, method: Method, optimizer: torch.optim.Optimizer, images: Sequence[ImageSource], ranks: Ranks
    ) -> ResumeState:
        """Restore the last saved state into the method and its optimiser; for a new run, return an empty state.

        The log is cut to its length when the state was saved.

        Args:
            images: those that the run depends on.

        Raises:
            InputError: the state cannot be read or is another run's; an image has changed; the log was edited.
        """
        state = ResumeState(folder, ImageDigests.of(images) if ranks.is_first else None)
        path, log_bytes, log_digest = folder / RESUME, 0, _digest(b"")
        if path.exists():
            try:
                log_bytes, log_digest, earlier = state._restore(path, method, optimizer)
            except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
                first = str(error).strip().splitlines()[0]
                raise InputError(
                    f"{path} cannot be resumed from ({first}): remove it to start from the first epoch"
                ) from error
            if state.images is not None:
                state.images.check(earlier, path)
        if ranks.is_first:
            _cut_log(folder / LOG, log_bytes, log_digest)
        return state

    def _restore(self, path: Path, method: Method, optimizer: torch.optim.Optimizer) -> tuple[int, str, Tensor]:
        """Read the file. Return the log's length in bytes and digest and the images' digests at that time."""
        with safe_open(path, framework="pt", device=str(method.backbone.device)) as file:
            metadata = file.metadata() or {}
            if metadata.get("run") != _run_digest(self.folder):
                raise ValueError(f"it does not belong to the run that {CONFIG} beside it describes")
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
        self.epochs, self.seconds = int(metadata["epochs"]), float(metadata["seconds"])
        self.skipped = int(metadata["skipped"])
        if "best" in metadata:
            self.best = BestEpoch(float(metadata["best"]), _with_prefix("best.", tensors))
        method.load_state_dict(_with_prefix("learned.", tensors))
        optimizer_state: dict[int, dict[str, Tensor]] = {}
        for key, tensor in _with_prefix("optimizer.", tensors).items():
            index, name = key.split(".", 1)
            optimizer_state.setdefault(int(index), {})[name] = tensor
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": optimizer_state, "param_groups": groups})
        return int(metadata["log_bytes"]), metadata["log"], tensors["pictures"].cpu()

    def save(self, method: Method, optimizer: torch.optim.Optimizer) -> None:
        """Write the state, which belongs to the log as it is now."""
        tensors = {f"learned.{key}": tensor for key, tensor in method.state_dict().items()}
        for index, state in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": t for key, t in state.items() if isinstance(t, Tensor)}
        log = (self.folder / LOG).read_bytes()
        metadata = {"epochs": str(self.epochs), "seconds": str(self.seconds), "skipped": str(self.skipped)}
        metadata |= {"run": _run_digest(self.folder), "log": _digest(log), "log_bytes": str(len(log))}
        if self.best is not None:
            tensors |= {f"best.{key}": tensor for key, tensor in self.best.learned.items()}
            metadata["best"] = str(self.best.accuracy)
        if self.images is not None:
            tensors["pictures"] = self.images.digests
        save_tensors(self.folder / RESUME, tensors, metadata)


def _cut_log(path: Path, size: int, digest: str) -> None:
    """Remove from the log what was written after the state.

    Raises:
        InputError: its first `size` bytes have changed, or it cannot be written.
    """
    try:
        if not path.exists():
            return
        if _digest(path.read_bytes()[:size]) != digest:
            raise InputError(f"{path} has changed since the last finished epoch: restore it, or remove it to resume")
        if size:
            os.truncate(path, size)
        else:
            path.unlink()
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _run_digest(folder: Path) -> str:
    """Return the digest of the run's config, which identifies the run."""
    path = folder / CONFIG
    return _digest(path.read_bytes() if path.is_file() else b"")


def _digest(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose keys begin with the prefix, without it."""
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}
