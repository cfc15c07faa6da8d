"""One training run from its config: data, backbone and method put together, trained and saved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from lightning_fabric import Fabric

from gopro.clip.backbone import Backbone, Encoded, load_backbone
from gopro.data.dataset import Dataset, Sample
from gopro.data.decoded_image import load_into_memory
from gopro.data.load_dataset import load_dataset
from gopro.data.loader import ViewSettings, train_batches
from gopro.data.transforms import CROP, stable_seed
from gopro.distributed import SINGLE_PROCESS, Ranks
from gopro.errors import InputError
from gopro.files import save_tensors, write_json
from gopro.inference.evaluate import encode_samples
from gopro.methods.base import Method
from gopro.methods.registry import build_method, parse_method
from gopro.runs.config import TrainConfig
from gopro.runs.environment import PeakMemory
from gopro.runs.run import CONFIG, COST, LEARNED, Run, TrainingCost, describe, load_run, read_config
from gopro.training.batches import encode_drawn_views
from gopro.training.determinism import deterministic
from gopro.training.devices import count_processes, started
from gopro.training.folder_lock import LOCK, leftovers, lock_folder
from gopro.training.launch import together
from gopro.training.loop import Step, fit
from gopro.training.non_finite import check_learned
from gopro.training.profiling import traced
from gopro.training.resume_state import RESUME

FILES = (CONFIG, COST, LEARNED, RESUME)
"""What only the process that trains a run writes, beside its log."""


def train(
    config: TrainConfig,
    *,
    devices: int | None = None,
    backbone: Backbone | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
) -> Run:
    """Trains as the config says and writes the run's folder.

    Args:
        devices: of this machine, to train on at once, see `gopro.training.launch`. They change no result: each takes
            its share of every batch. A script that asks for several has to be guarded by `if __name__ == "__main__"`.
        backbone: to share one between runs; loaded by `config.backbone` if not given. The run computes where it is.
        on_step: called after every step, for progress.
        on_fill: called while the view bank is filled, with how many views are there and of how many.

    Raises:
        InputError: anything in the config that cannot be had, an output folder that is taken or cannot be written, a
            backbone on another device than the config's.
    """
    folder = config.output
    with _together(config, folder, devices, backbone, partial(train, config)) as (fabric, ranks):
        if ranks.is_first:
            _check_free(folder)
        few, method = _prepare(config, backbone, fabric)
        with _alone(folder, ranks):
            if ranks.is_first:
                _check_free(folder)  # another process may have been quicker
                write_json(folder / CONFIG, describe(config, few.name, few.template, method))
            return _train(config, folder, few, method, fabric, ranks, on_step, on_fill)


def resume(
    folder: Path,
    *,
    devices: int | None = None,
    backbone: Backbone | None = None,
    on_step: Callable[[Step], None] = lambda step: None,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
) -> Run:
    """Goes on with a run that was cut off, from its last finished epoch. The arguments are those of `train`; the
    devices need not be as many as before.

    Raises:
        InputError: not a run's folder, a run that is finished or that another process is at, or one whose data or
            backbone is not what it was.
    """
    if folder.is_dir() and _is_free(folder):
        raise InputError(f"{folder}: the run was cut off before it began: start it anew, with the same --output")
    config = read_config(folder)["config"]
    again = partial(resume, folder)
    with _together(config, folder, devices, backbone, again) as (fabric, ranks), _alone(folder, ranks):
        if ranks.broadcast((folder / LEARNED).exists()):
            return _tidied(folder, backbone) if ranks.is_first else load_run(folder, backbone=backbone)
        content = read_config(folder)
        few, method = _prepare(config, backbone, fabric)
        if list(few.classnames) != content["classnames"]:
            raise InputError(f"{folder}: the classes of {config.data} are not what they were when the run began")
        if method.backbone.fingerprint() != content["backbone"]["fingerprint"]:
            raise InputError(f"{folder}: the weights of {config.backbone} are not what they were when the run began")
        return _train(config, folder, few, method, fabric, ranks, on_step, on_fill)


def _check_free(folder: Path) -> None:
    """That no run is in the folder, nor anything else."""
    if not _is_free(folder):
        hint = f"go on with it by gopro train --resume {folder}, or " if (folder / CONFIG).is_file() else ""
        raise InputError(f"{folder} is not empty: {hint}choose another --output")


def _is_free(folder: Path) -> bool:
    """Whether there is nothing but what a run that was killed before it began may leave."""
    try:
        return not folder.exists() or not set(folder.iterdir()) - {folder / LOCK, *leftovers(folder, FILES)}
    except NotADirectoryError:
        return False
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _tidied(folder: Path, backbone: Backbone | None) -> Run:
    """A run that was cut off when all was done but removing what it would have gone on from.

    Raises:
        InputError: what was learned is damaged, or the run is finished.
    """
    run = load_run(folder, backbone=backbone)
    if not (folder / RESUME).exists():
        raise InputError(f"{folder} is finished: there is nothing to go on with")
    (folder / RESUME).unlink()
    return run


def _alone(folder: Path, ranks: Ranks) -> AbstractContextManager[None]:
    """That no other run is in the folder; the first of several processes sees to it for all."""
    return lock_folder(folder, FILES) if ranks.is_first else nullcontext()


def _together(
    config: TrainConfig, folder: Path, devices: int | None, backbone: Backbone | None, again: Callable[[], object]
) -> AbstractContextManager[tuple[Fabric, Ranks]]:
    """The run's device, or this process's, once it is clear that the config can be followed there."""
    kind, _ = parse_method(config.method)
    if config.bank < 0:
        raise InputError(f"bank is {config.bank}: give a number of views to keep of each image, or 0")
    recipe = None if kind.recipe is None else config.recipe(kind.recipe)
    if recipe is None and config.profile:
        raise InputError(f"--profile: {config.method} is not trained in steps, there is nothing to trace")
    count = count_processes(devices)
    if count > 1 and recipe is None:
        raise InputError(f"{config.method} is not trained in steps: it takes one device, not {count}")
    if recipe is not None and recipe.batch < count:
        raise InputError(f"batch is {recipe.batch}: give at least {count}, an image for each device")
    if backbone is not None and count > 1 and started() is None:
        raise InputError(f"devices is {count}: the others cannot share a backbone of this process; give none")
    how = config
    if backbone is not None and config.device == "auto":
        how = replace(config, device="cuda" if backbone.device.type == "cuda" else "cpu")
    return together(how, devices, again, f"go on with it by gopro train --resume {folder}")


def _prepare(config: TrainConfig, backbone: Backbone | None, fabric: Fabric) -> tuple[Dataset, Method]:
    """The training and validation images and the untrained method, checked before anything is written."""
    kind, _ = parse_method(config.method)
    few = replace(load_dataset(config.data, config.root).half(config.classes), test=())  # training never sees them
    if kind.learns:
        few = few.few_shot(config.shots, config.seed)
        if config.select == "val" and not few.val:
            raise InputError(f"{few.name} has no validation images to choose an epoch by: use --select last")
    if len(few.classnames) < 2:
        only = " ".join(map(repr, few.classnames))
        raise InputError(f"{few.name}: there is only one class to train on, {only}; give at least two")
    if backbone is None:
        backbone = load_backbone(config.backbone, fabric.device)
    elif backbone.device != fabric.device:
        raise InputError(f"device {config.device}: the backbone is on {backbone.device}; load it on {fabric.device}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stable_seed(config.seed, "start"))
        method = build_method(config.method, backbone, few.classnames, few.template)
    return few, method.to(fabric.device)


def _train(
    config: TrainConfig,
    folder: Path,
    few: Dataset,
    method: Method,
    fabric: Fabric,
    ranks: Ranks,
    on_step: Callable[[Step], None],
    on_fill: Callable[[int, int], None],
) -> Run:
    memory, seconds, skipped = PeakMemory(method.backbone.device), 0.0, 0
    with deterministic(config.deterministic):
        if method.solves:
            seconds += _solve(config, few, method, fabric, ranks)
        if method.recipe is not None:
            recipe = config.recipe(method.recipe)
            val = few.val if config.select == "val" else ()
            profiled = config.profile and ranks.is_first
            with traced(folder, on_step) if profiled else nullcontext(on_step) as on_step:
                fitted = fit(
                    method,
                    few.train,
                    recipe,
                    fabric,
                    seed=config.seed,
                    folder=folder,
                    ranks=ranks,
                    val=val,
                    accumulate=config.accumulate,
                    non_finite=config.non_finite,
                    bank=config.bank,
                    crop=_crop(config, few),
                    workers=config.workers,
                    on_fill=on_fill,
                    on_step=on_step,
                )
            seconds, skipped = seconds + fitted.seconds, fitted.skipped
    check_learned(method)
    if ranks.is_first:
        _write(folder, method, seconds, skipped, memory)
    ranks.barrier()
    return Run(folder, config, few.name, few.template, method.eval())


def _write(folder: Path, method: Method, seconds: float, skipped: int, memory: PeakMemory) -> None:
    """What a finished run leaves."""
    parameters = sum(parameter.numel() for parameter in method.parameters())
    peak = None if memory.mib is None else round(memory.mib, 1)
    write_json(folder / COST, asdict(TrainingCost(round(seconds, 2), peak, parameters, skipped)))
    save_tensors(folder / LEARNED, method.state_dict())
    (folder / RESUME).unlink(missing_ok=True)


def _solve(config: TrainConfig, few: Dataset, method: Method, fabric: Fabric, ranks: Ranks) -> float:
    """Has the method take what it can from all training images at once. Returns seconds."""
    started = time.perf_counter()
    device = method.backbone.device
    val = None
    if few.val:
        with fabric.autocast():
            held_out = encode_samples(method, few.val, workers=config.workers)
        val = held_out.encoded[:].to(device), held_out.labels.to(device)
    labels = torch.tensor([sample.label for sample in few.train], device=device)
    crop = _crop(config, few)
    draws = draws_for_solve(method, few.train, fabric, config.seed, config.workers, config.bank, crop, ranks)
    method.solve(draws, labels, val)
    return time.perf_counter() - started


def _crop(config: TrainConfig, few: Dataset) -> float:
    return few.crop if config.crop is None else config.crop


def draws_for_solve(
    method: Method,
    samples: Sequence[Sample],
    fabric: Fabric,
    seed: int,
    workers: int,
    bank: int = 0,
    crop: float = CROP,
    ranks: Ranks = SINGLE_PROCESS,
) -> Iterator[Encoded]:
    """The training images in their order, [n], as often as `Method.solve` wants them; one draw at a time is made.

    Args:
        bank: where above 0, draw d is d mod `bank` of the view bank's.
        crop: of the random views, see `gopro.data.transforms.make_view`.
    """
    device, preprocess = method.backbone.device, method.backbone.preprocess
    if not method.draws:
        with fabric.autocast():
            encoded = encode_samples(method, samples, workers=workers).encoded
        yield encoded[:].to(device)
        return
    if bank:
        features = encode_drawn_views(
            method, method.views[:1], samples, fabric, ranks, min(bank, method.draws), crop, workers
        )
        each = torch.arange(len(samples)) * min(bank, method.draws)
        for draw in range(method.draws):
            yield features[each + draw % bank].to(device)
        return
    # A batch size that leaves no image alone in the last batch, where the loader would leave it out.
    size = next(size for size in range(64, 1, -1) if len(samples) % size != 1)
    images = load_into_memory(samples, preprocess)
    loader = train_batches(images, method.views[:1], ViewSettings(preprocess, crop, workers=workers), size, seed)
    for draw in range(method.draws):
        loader.set_epoch(draw)
        parts, indices = [], []
        for batch in loader:
            with fabric.autocast():
                parts.append(method.encode(batch.views[0].to(device)))
            indices.append(batch.indices)
        yield Encoded.cat(parts)[torch.cat(indices).argsort().to(device)]
