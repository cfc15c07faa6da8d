"""`gopro train`."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gopro.cli.backbone_line import print_backbone
from gopro.cli.console import err, out, print_epoch, steps
from gopro.cli.parameters import ConfigFile, Flat
from gopro.clip.weights.embedded import EMBEDDED, default_backbone
from gopro.errors import InputError
from gopro.methods.recipe import Training
from gopro.runs.config import TrainConfig

if TYPE_CHECKING:
    from gopro.runs.run import Run


def train_command(
    config: Annotated[TrainConfig | None, Flat] = None,
    *,
    resume_from: Annotated[
        Path | None,
        Parameter(name="--resume", help="Folder of an interrupted run to continue, instead of --data."),
    ] = None,
    devices: int | None = None,
    config_file: ConfigFile = None,
) -> None:
    """Train a method on a few labelled images per class.

    Only --data is needed: gopro train --data MY_IMAGES

    Parameters
    ----------
    resume_from:
        Folder of an interrupted run to continue, instead of --data.
    devices:
        Number of devices of this machine to train on; the result is the same. Default: 1, or under torchrun or SLURM
        one per process.
    """
    from gopro.runs.run import CONFIG, read_config, read_cost
    from gopro.runs.training_images import read_unlabeled_images
    from gopro.training.devices import find_process
    from gopro.training.train import resume, train

    process = None if devices == 1 else find_process()
    prints = process is None or process.rank == 0  # one of several processes
    with _advice_if_interrupted(resume_from or (config and config.output)), steps(visible=prints) as (on_step, on_fill):
        if resume_from is not None:
            if config is not None:
                raise InputError("--resume: the run keeps its settings; give no other option except --devices")
            if prints and (resume_from / CONFIG).is_file():
                print_backbone(str(read_config(resume_from)["config"].backbone))
            run = resume(resume_from, devices=devices, on_step=on_step, on_epoch=print_epoch, on_fill=on_fill)
        elif config is None:
            raise InputError("no data to train on: type gopro train --data FOLDER (see gopro train --help)")
        else:
            if prints:
                print_backbone(str(config.backbone), "--backbone")
            run = train(config, devices=devices, on_step=on_step, on_epoch=print_epoch, on_fill=on_fill)
    if not prints:
        return
    classes = f"{len(run.method.classnames)} classes of {run.data}"
    if run.method.trained_by:
        out.print_line(f"Trained {run.config.method} on {classes}{_recipe_in_words(run)}.")
        if unlabeled := read_unlabeled_images(run.folder):
            out.print_line(f"It also learned from {len(unlabeled)} images without labels.")
    else:
        out.print_line(f"{run.config.method} needs no training; it is ready for {classes}.")
    if skipped := read_cost(run.folder).skipped_steps:
        out.print_line(f"Skipped steps: {skipped}, because a loss or gradient was not finite.")
    out.print_line(_validation_in_words(run))
    if (warning := _chance_warning(run)) is not None:
        err.print_line(f"warning: {warning}")
    out.print_line(f"Next: gopro eval {run.folder}")


def _validation_in_words(run: Run) -> str:
    """Compare the accuracy on validation images with zero-shot CLIP's."""
    fitted = run.calibration
    if fitted is None or fitted.accuracy is None:
        problem = "the weights are those of an earlier version" if fitted is None else fitted.problem
        return f"No validation accuracy, and probabilities are not calibrated: {problem}."
    zeroshot = "" if not run.method.trained_by else f", zero-shot CLIP's {fitted.zeroshot_accuracy:.1f} %"
    return f"Validation accuracy {fitted.accuracy:.1f} %{zeroshot} ({fitted.images} images)."


@contextmanager
def _advice_if_interrupted(folder: Path | None) -> Iterator[None]:
    """Say after Ctrl-C how to resume the run, if it has begun."""
    from gopro.runs.run import CONFIG

    try:
        yield
    except KeyboardInterrupt:
        if folder is None or not (folder / CONFIG).is_file():
            raise
        err.print_line(f"interrupted: to continue, type gopro train --resume {folder}")
        sys.exit(130)


def _chance_warning(run: Run) -> str | None:
    """Return a warning if zero-shot accuracy on validation images is near chance.

    Without these it is measured on at most 64 training images, and only where that costs a second or two and may well
    be: with an embedded backbone. The emoji sets are meant to be hard.
    """
    from gopro.inference.chance import chance_warning, near_chance, zeroshot_warning
    from gopro.inference.evaluate import encode_samples

    config, method, fitted = run.config, run.method, run.calibration
    if default_backbone(config.data) == "emoji":
        return None
    if fitted is not None and fitted.zeroshot_accuracy is not None:
        classes, images = len(method.classnames), f"{fitted.images} validation images of {run.data}"
        if not near_chance(fitted.zeroshot_accuracy, fitted.images, classes):
            return None
        return chance_warning(method.backbone.name, images, fitted.zeroshot_accuracy, classes, "--backbone")
    if method.backbone.name not in EMBEDDED:
        return None
    dataset = run.dataset().half(config.classes)
    images = dataset.few_shot(config.shots, config.seed).train if method.trained_by else dataset.train
    if not images:
        return None
    samples = encode_samples(method, images[:: math.ceil(len(images) / 64)])
    return zeroshot_warning(method, samples, f"{len(samples.labels)} training images of {run.data}", "--backbone")


def _recipe_in_words(run: Run) -> str:
    """Say what a run was trained with: ` with the recipe for few-shot: 50 epochs, batches of 4, SGD at 0.002`."""
    if run.trained_with is None or run.trained_with.recipe is None or Training.STEPS not in run.method.trained_by:
        return ""
    return f" with the recipe for {run.trained_with.task}: {run.trained_with.recipe.in_words()}"
