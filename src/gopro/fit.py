"""The training loop, the choice of the epoch to keep, and going on after a cut."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gopro.bank import training_batches
from gopro.data.dataset import Sample
from gopro.errors import InputError
from gopro.evaluate import encode_samples, evaluate, evaluate_pictures
from gopro.finite import Finite, NonFinite
from gopro.methods import Method, Recipe
from gopro.ranks import ALONE, Ranks
from gopro.run import CONFIG, append, save_tensors
from gopro.views import CROP

RESUME, LOG = "resume.safetensors", "log.csv"
WARMUP_LR = 1e-5


@dataclass(frozen=True)
class Step:
    """What a step of training says of itself; `terms` are the weighted losses, still on the device."""

    step: int
    steps: int
    epoch: int
    lr: float
    terms: dict[str, Tensor]


@dataclass(frozen=True)
class Fitted:
    """What training took: seconds, those before a cut included, and how many steps were skipped."""

    seconds: float
    skipped: int


@dataclass
class Best:
    """The epoch that was best on the validation pictures: their accuracy in percent, and what was learned by then."""

    accuracy: float
    learned: dict[str, Tensor]


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """The learning rate at a fractional epoch: constant and small for the warm-up, then a cosine down to 0."""
    if epoch < recipe.warmup:
        return min(WARMUP_LR, recipe.lr)
    return recipe.lr * (1 + math.cos(math.pi * epoch / recipe.epochs)) / 2


def fit(
    method: Method,
    samples: Sequence[Sample],
    recipe: Recipe,
    fabric: Fabric,
    *,
    seed: int,
    folder: Path,
    ranks: Ranks = ALONE,
    val: Sequence[Sample] = (),
    accumulate: int = 1,
    non_finite: NonFinite = "stop",
    bank: int = 0,
    crop: float = CROP,
    workers: int = 0,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> Fitted:
    """Trains a method in place, going on where `folder` says that an earlier call was cut off.

    After every epoch the learned tensors and the optimiser's state are in `folder/resume.safetensors` and the losses
    in `folder/log.csv`. Order and views depend on (seed, epoch, picture) alone, so a run that was cut ends as one that
    was not. Of several processes each takes its share of every batch, and the first one writes.

    Args:
        val: where given, the method ends as it was after the epoch with the highest accuracy on these pictures, the
            latest of equals; each epoch's is in the log.
        accumulate: batches whose gradients are averaged for one step of the optimiser.
        non_finite: whether a step whose loss or gradient is not finite stops the run, or is left out and counted.
        bank: K of the view bank; see `gopro.bank.training_batches`.
        crop: of the random views, see `gopro.views.make_view`.
        on_fill: told how many of the bank's views are there, and of how many.

    Raises:
        InputError: a loss or gradient that is not finite, or with `skip` those of a whole epoch; a picture that cannot
            be read; a folder that cannot be written.
    """
    parameters = [p for p in method.parameters() if p.requires_grad]
    if recipe.optimizer == "sgd":
        plain = torch.optim.SGD(parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)
    else:
        plain = torch.optim.AdamW(parameters, lr=recipe.lr, weight_decay=recipe.weight_decay)
    module, optimizer = fabric.setup(method, plain)
    started = time.perf_counter()
    bank = min(bank, recipe.epochs)  # draws that no epoch comes to are not encoded
    batches = training_batches(
        method,
        samples,
        recipe.batch,
        seed,
        fabric,
        ranks=ranks,
        bank=bank,
        crop=crop,
        workers=workers,
        on_fill=on_fill,
    )
    steps = len(batches)
    first, earlier, skipped, best = _resume(folder, method, optimizer, ranks)
    started -= earlier
    finite = Finite(parameters, non_finite, folder / RESUME, skipped)
    chooses = bool(val) and ranks.first
    held_out = encode_samples(method, val, workers=workers) if chooses and method.frozen_images else None
    for epoch in range(first, recipe.epochs):
        module.train()
        lrs, losses = [], []
        for i, (encoded, labels) in enumerate(batches.epoch(epoch)):
            start = i - i % accumulate
            together = min(accumulate, steps - start)
            if i == start:
                lr = learning_rate(recipe, epoch + i / steps)
                for group in optimizer.param_groups:
                    group["lr"] = lr
                optimizer.zero_grad()
            with ranks.batch(batches.size(i)) as weight:
                terms = module(encoded, labels)
                total = torch.stack(list(terms.values())).sum()
                fabric.backward(total * weight / together)
            terms = {"total": total.detach(), **{name: term.detach() for name, term in terms.items()}}
            terms = ranks.mean(terms, weight)
            if i == start + together - 1:
                ranks.average_gradients(parameters)
                if finite.allows(epoch * steps + i + 1, terms):
                    optimizer.step()
            lrs.append(lr)
            losses.append(terms)
            on_step(Step(epoch * steps + i + 1, recipe.epochs * steps, epoch, lr, terms))
        finite.end_epoch(epoch)
        method.end_epoch(epoch, recipe.epochs)
        accuracy = None
        if held_out is not None:
            accuracy = evaluate(method, held_out).accuracy
        elif chooses:
            accuracy = evaluate_pictures(method, val, workers=workers).accuracy
        accuracy = ranks.agree(accuracy)
        if accuracy is not None and (best is None or accuracy >= best.accuracy):
            best = Best(accuracy, {key: tensor.clone() for key, tensor in method.state_dict().items()})
        if ranks.first:
            seconds = time.perf_counter() - started
            _log(folder / LOG, epoch, steps, lrs, losses, seconds, accuracy)
            _save(folder, method, optimizer, epoch + 1, seconds, finite.skipped, best)
    module.eval()
    if best is not None:
        method.load_state_dict(best.learned)
    return Fitted(time.perf_counter() - started, finite.skipped)


def _log(
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


def _save(
    folder: Path,
    method: Method,
    optimizer: torch.optim.Optimizer,
    epochs: int,
    seconds: float,
    skipped: int,
    best: Best | None,
) -> None:
    tensors = {f"learned.{key}": tensor for key, tensor in method.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{key}": t for key, t in state.items() if isinstance(t, Tensor)}
    log = (folder / LOG).read_bytes()
    said = {"epochs": str(epochs), "seconds": str(seconds), "skipped": str(skipped)}
    said |= {"run": _run(folder), "log": _digest(log), "log_bytes": str(len(log))}
    if best is not None:
        tensors |= {f"best.{key}": tensor for key, tensor in best.learned.items()}
        said["best"] = str(best.accuracy)
    save_tensors(folder / RESUME, tensors, said)


def _resume(
    folder: Path, method: Method, optimizer: torch.optim.Optimizer, ranks: Ranks
) -> tuple[int, float, int, Best | None]:
    """Puts the last saved state back, and the log to where it was then.

    Returns: the epochs that are done, the seconds they took, the steps skipped in them, the best of them where one was
    chosen.
    """
    path = folder / RESUME
    if not path.exists():
        if ranks.first:
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
        log_bytes, log = int(said["log_bytes"]), said["log"]
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise InputError(f"{path} cannot be gone on from ({first}): remove it to start anew") from error
    if ranks.first:
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
