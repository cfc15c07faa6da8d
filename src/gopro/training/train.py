"""`gopro.train` and `gopro.resume`: one training run, from its config to its folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch

from gopro.clip.backbone import Backbone, load_backbone
from gopro.data.dataset import CROP, Dataset, Sample
from gopro.data.few_shot import draw_per_class, warn_of_short_classes
from gopro.data.images.transforms import stable_seed
from gopro.data.load_dataset import load_dataset, load_target
from gopro.data.unlabeled import UnlabeledImages, find_unlabeled, join_names
from gopro.errors import InputError
from gopro.inference.calibrate import calibrate
from gopro.methods.recipe import Recipe, Training
from gopro.methods.registry import METHODS, MethodSpec, check_backbone, parse_method
from gopro.runs.calibration import CALIBRATION, Calibration, write_calibration
from gopro.runs.config import TrainConfig
from gopro.runs.environment import PeakMemory
from gopro.runs.load_run import load_run, recorded_method
from gopro.runs.run import CONFIG, COST, LEARNED, Run, TrainingCost, read_config, write_config, write_learned
from gopro.runs.trained_with import TrainedWith
from gopro.runs.training_images import TRAINING_IMAGES, given_images, write_training_images
from gopro.training.determinism import deterministic
from gopro.training.devices import Runtime, find_process
from gopro.training.folder_lock import LOCK, leftovers, lock_folder
from gopro.training.launch import count_processes, launch
from gopro.training.loggers import check_logger, logged
from gopro.training.loop import FitResult, fit
from gopro.training.non_finite import check_learned
from gopro.training.profiling import profiled
from gopro.training.progress import NO_PROGRESS, Epoch, Progress, Step
from gopro.training.resume_state import RESUME
from gopro.training.solve import solve

FILES = (CALIBRATION, CONFIG, COST, LEARNED, RESUME, TRAINING_IMAGES)
"""Files that only the process that trains a run writes, besides its log."""


def train(
    config: TrainConfig,
    *,
    devices: int | None = None,
    backbone: Backbone | None = None,
    on_step: Callable[[Step], None] = NO_PROGRESS.step,
    on_epoch: Callable[[Epoch], None] = NO_PROGRESS.epoch,
    on_fill: Callable[[int, int], None] = NO_PROGRESS.fill,
) -> Run:
    """Train a method and write the run's folder, `config.output`.

    Args:
        devices: devices of this machine to train on at once; see docs/devices.md. The result does not depend on it. A
            script that asks for several must be guarded by `if __name__ == "__main__"`.
        backbone: a backbone to use in place of loading `config.backbone`, so that runs can share one. The run computes
            on its device.
        on_step: called after each batch.
        on_epoch: called after each epoch, once it is saved.
        on_fill: called while the view bank is filled, with the number of views so far and the number it will hold.

    Raises:
        InputError: a setting cannot be satisfied; the output folder is not empty or cannot be written; the backbone is
            not on the device that the config asks for.

    Example:
        config = gopro.TrainConfig(data="my-images", output=Path("runs/mine"), method="gopro", shots=4)
        run = gopro.train(config, on_step=lambda step: print(step.step, "of", step.steps))
    """
    return _launch(_plan(config), _start, devices, backbone, Progress(on_step, on_epoch, on_fill))


def resume(
    folder: Path,
    *,
    devices: int | None = None,
    backbone: Backbone | None = None,
    on_step: Callable[[Step], None] = NO_PROGRESS.step,
    on_epoch: Callable[[Epoch], None] = NO_PROGRESS.epoch,
    on_fill: Callable[[int, int], None] = NO_PROGRESS.fill,
) -> Run:
    """Resume an interrupted run after its last finished epoch.

    The arguments are those of `train`. The number of devices need not be the same as before.

    Raises:
        InputError: the folder is not a run's; the run is finished or another process is training it; its images or its
            backbone have changed.
    """
    if folder.is_dir() and _is_vacant(folder):
        raise InputError(
            f"{folder} has no training to resume; start one with gopro train --data FOLDER --output {folder}"
        )
    return _launch(_recorded_plan(folder), _continue, devices, backbone, Progress(on_step, on_epoch, on_fill))


@dataclass(frozen=True)
class _Plan:
    """The parsed settings of a run, which each of its processes works from.

    Attributes:
        spec: the method, with its authors' settings for this training.
        recipe: the authors' recipe for this training, changed by the settings of the run.
    """

    config: TrainConfig
    spec: MethodSpec
    recipe: Recipe

    @property
    def folder(self) -> Path:
        return self.config.output

    @property
    def in_steps(self) -> bool:
        return Training.STEPS in self.spec.kind.trained_by


def _plan(config: TrainConfig) -> _Plan:
    spec, recipe = parse_method(config.method).for_training(config.conditions)
    plan = _Plan(config, spec, config.recipe(recipe, chosen=spec.recipe_settings))
    if config.unlabeled is not None and not spec.kind.uses_unlabeled:
        users = ", ".join(name for name, kind in METHODS.items() if kind.uses_unlabeled)
        raise InputError(
            f"--unlabeled {config.unlabeled}: {spec.name} learns nothing from images without labels; leave it out, or "
            f"use --method {users}"
        )
    if config.unlabeled_classes and config.unlabeled is None and not plan.recipe.unlabeled_shots:
        raise InputError(
            f"--unlabeled-classes {' '.join(config.unlabeled_classes)}: there are no images without labels; add "
            "--unlabeled FOLDER"
        )
    if config.profile and not plan.in_steps:
        raise InputError(f"--profile: {config.method} is not trained in steps, so there is nothing to trace")
    return plan


def _recorded_plan(folder: Path) -> _Plan:
    """Return the plan that an interrupted run was begun with."""
    content = read_config(folder)
    config = replace(content["config"], output=folder)
    spec, trained_with = recorded_method(content), content["trained_with"]
    if trained_with is not None:
        return _Plan(config, spec, trained_with.recipe or spec.kind.recipe)
    # Earlier versions recorded nothing. They had one recipe for each method, with a cosine stepped with every batch.
    recipe = replace(spec.kind.recipe, schedule="step", drop_last=False, crop=CROP, eps=Recipe().eps, bank=0)
    if spec.name == "coop":
        recipe = replace(recipe, epochs=50)
    return _Plan(config, spec, config.recipe(recipe, chosen=spec.recipe_settings))


def _launch(
    plan: _Plan, run: Callable[..., Run], devices: int | None, backbone: Backbone | None, progress: Progress
) -> Run:
    """Call `run` in each process of the run, once it is clear that they can do and share the work."""
    check_logger(plan.config.logger)
    if backbone is None:
        check_backbone([plan.config.method], str(plan.config.backbone))
    count = count_processes(devices)
    if count > 1 and not plan.in_steps:
        raise InputError(f"{plan.config.method} is not trained in steps: it runs on one device, not {count}")
    if plan.in_steps and plan.recipe.batch < count:
        raise InputError(f"batch is {plan.recipe.batch}: give at least {count}, an image for each device")
    if backbone is not None and count > 1 and find_process() is None:
        raise InputError(f"devices is {count}: other processes cannot share this one's backbone; leave backbone out")
    settings = plan.config
    if backbone is not None and settings.device == "auto":
        settings = replace(settings, device="cuda" if backbone.device.type == "cuda" else "cpu")
    entry_point = partial(run, plan)
    main = partial(entry_point, backbone=backbone, progress=progress)
    return launch(main, entry_point, settings, devices, f"resume it with gopro train --resume {plan.folder}")


def _start(plan: _Plan, runtime: Runtime, backbone: Backbone | None = None, progress: Progress = NO_PROGRESS) -> Run:
    """Train a new run, in one of its processes."""
    if runtime.ranks.is_first:
        _check_vacant(plan.folder)
    run, dataset = _prepare(plan, backbone, runtime)
    with _lock(plan.folder, runtime):
        if runtime.ranks.is_first:
            _check_vacant(plan.folder)  # another process may have been quicker
            write_config(run)
        return _train(plan, run, dataset, runtime, progress)


def _continue(plan: _Plan, runtime: Runtime, backbone: Backbone | None = None, progress: Progress = NO_PROGRESS) -> Run:
    """Continue an interrupted run, in one of its processes."""
    folder, config = plan.folder, plan.config
    with _lock(folder, runtime):
        if runtime.ranks.broadcast((folder / LEARNED).exists()):
            return _finish(folder, backbone) if runtime.ranks.is_first else load_run(folder, backbone=backbone)
        content = read_config(folder)
        run, dataset = _prepare(plan, backbone, runtime)
        if list(dataset.classnames) != content["classnames"]:
            raise InputError(f"{folder}: the classes of {config.data} have changed since the run began")
        if run.method.backbone.fingerprint() != content["backbone"]["fingerprint"]:
            raise InputError(f"{folder}: the weights of {config.backbone} have changed since the run began")
        return _train(plan, run, dataset, runtime, progress)


def _check_vacant(folder: Path) -> None:
    """Raise InputError if there is a run or anything else in the folder."""
    if not _is_vacant(folder):
        hint = f"resume it with gopro train --resume {folder}, or " if (folder / CONFIG).is_file() else ""
        raise InputError(f"{folder} is not empty: {hint}choose another --output")


def _is_vacant(folder: Path) -> bool:
    """Return whether the folder holds nothing, or only what a run leaves that is killed before it begins."""
    try:
        return not folder.exists() or not set(folder.iterdir()) - {folder / LOCK, *leftovers(folder, FILES)}
    except NotADirectoryError:
        return False
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from error


def _lock(folder: Path, runtime: Runtime) -> AbstractContextManager[None]:
    """Keep other runs out of the folder. Rank 0 holds the lock for all processes of this run."""
    return lock_folder(folder, FILES) if runtime.ranks.is_first else nullcontext()


def _finish(folder: Path, backbone: Backbone | None) -> Run:
    """Finish a run that was interrupted after saving its weights but before deleting its resume file.

    Raises:
        InputError: the weights are damaged; the run is finished already.
    """
    run = load_run(folder, backbone=backbone)
    if not (folder / RESUME).exists():
        raise InputError(f"{folder} is finished: there is nothing to resume")
    (folder / RESUME).unlink()
    return run


def _prepare(plan: _Plan, backbone: Backbone | None, runtime: Runtime) -> tuple[Run, Dataset]:
    """Build the untrained method and load its training and validation images, before anything is written."""
    config = plan.config
    load = load_dataset if plan.spec.kind.trained_by else load_target  # without images, no split has to be drawn
    whole = load(config.data, config.root, levels=config.levels)
    dataset = replace(whole.half(config.classes), test=())  # out of reach of training
    unlabeled = UnlabeledImages()
    if plan.spec.kind.trained_by:
        if runtime.ranks.is_first:
            warn_of_short_classes(dataset, config.shots)
        dataset = dataset.few_shot(config.shots, config.seed)
        if config.select == "val" and not dataset.val:
            raise InputError(f"{dataset.name} has no validation images to choose an epoch by: use --select last")
        unlabeled = find_unlabeled(
            config.unlabeled, plan.recipe.unlabeled_shots, whole, dataset, config.seed, config.root, config.levels
        )
        dataset = replace(dataset, unlabeled=unlabeled.images)
    if len(dataset.classnames) < 2:
        only = " ".join(map(repr, dataset.classnames))
        raise InputError(f"{dataset.name} has only one class to train on, {only}: give at least two")
    if backbone is None:
        assert config.backbone is not None  # TrainConfig fills it in
        backbone = load_backbone(config.backbone, runtime.device)
    elif backbone.device != runtime.device:
        raise InputError(f"device {config.device}: the backbone is on {backbone.device}; load it on {runtime.device}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(stable_seed(config.seed, "start"))
        method = plan.spec.build(backbone, dataset.classnames, dataset.template)
    if dataset.unlabeled:
        count, batch = len(dataset.unlabeled), plan.recipe.batch
        if method.unlabeled_in_steps and count < batch:
            raise InputError(
                f"{config.unlabeled or whole.name}: {count} images without labels are fewer than a batch of {batch}; "
                f"add images, or use --batch {count} or fewer"
            )
        method.unlabeled_names = join_names(
            dataset.classnames, (*unlabeled.classnames, *(config.unlabeled_classes or ()))
        )
    trained_with = TrainedWith.of(config, plan.spec, plan.recipe, dataset)
    run = Run(plan.folder, config, dataset.name, dataset.template, method.to(runtime.device), trained_with=trained_with)
    return run, dataset


def _train(plan: _Plan, run: Run, dataset: Dataset, runtime: Runtime, progress: Progress) -> Run:
    """Solve the method, train it in steps, or both, and save what it has learned."""
    method, config, is_first = run.method, run.config, runtime.ranks.is_first
    recipe = config.recipe(plan.recipe, dataset.crop, plan.spec.recipe_settings)
    if is_first and method.trained_by:
        given = given_images(dataset, method.trained_by, config.select)
        write_training_images(run.folder, given, dataset.unlabeled)
    memory, seconds, fitted = PeakMemory(runtime.device), 0.0, FitResult(0.0, 0)
    with deterministic(config.deterministic):
        if Training.CLOSED_FORM in method.trained_by:
            seconds = solve(method, dataset, recipe, config, runtime)
        if plan.in_steps:
            with (
                profiled(progress, run.folder) if config.profile and is_first else nullcontext(progress) as progress,
                logged(progress, run) if config.logger is not None and is_first else nullcontext(progress) as progress,
            ):
                fitted = fit(method, dataset, recipe, config, runtime, progress)
    check_learned(method)
    method.eval()
    if is_first:
        peak = memory.mib
        cost = TrainingCost(
            train_seconds=round(seconds + fitted.seconds, 2),
            peak_memory_mib=None if peak is None else round(peak, 1),
            parameters=sum(parameter.numel() for parameter in method.parameters()),
            skipped_steps=fitted.skipped,
        )
        calibration = _calibrate(run, dataset)
        write_calibration(run.folder, calibration)
        method.temperature, run = calibration.temperature, replace(run, calibration=calibration)
        write_learned(run, cost)
        (run.folder / RESUME).unlink(missing_ok=True)
    runtime.ranks.barrier()
    return run


def _calibrate(run: Run, dataset: Dataset) -> Calibration:
    """Fit the run's temperature on its validation images. Images that cannot be read must not cost the training."""
    try:
        return calibrate(run.method, _validation_images(run, dataset), workers=run.config.workers)
    except InputError as error:
        warnings.warn(f"the probabilities of {run.folder} are not calibrated: {error}", stacklevel=2)
        return Calibration(problem="the validation images cannot be read")  # no path: a run may be pushed to the Hub


def _validation_images(run: Run, dataset: Dataset) -> tuple[Sample, ...]:
    """Return the validation images of the few-shot draw.

    A method that is not trained gets its data set without them, as it needs no images at all. In a benchmark, where its
    shots are 0, it gets none: all images of a target domain are test images.
    """
    if run.method.trained_by:
        return dataset.val
    if run.config.shots == 0:
        return ()
    try:
        whole = run.dataset().half(run.config.classes)
    except InputError:
        return ()  # a data set that can only be tested on
    shots = run.config.shots
    return draw_per_class(whole, "val", shots if shots == "all" else min(shots, 4), run.config.seed)
