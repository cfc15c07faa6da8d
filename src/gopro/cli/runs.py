"""`gopro train` and `eval`: one run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.markup import escape

from gopro.benchmark.worker import evaluation_figures
from gopro.cli.console import ConfigFile, Flat, bar, out, steps
from gopro.cli.head import agreement_in_words
from gopro.data.dataset import ClassHalf
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.files import slug, write_json
from gopro.inference.evaluate import evaluate_images
from gopro.inference.taylor_head import Agreement
from gopro.inference.taylor_head_file import load_or_build_head
from gopro.runs.config import TrainConfig
from gopro.runs.run import load_run, read_cost
from gopro.training.devices import started
from gopro.training.train import resume, train


def train_command(
    config: Annotated[TrainConfig | None, Flat] = None,
    *,
    resume_from: Annotated[Path | None, Parameter(name="--resume", help="Go on with a run that was cut off.")] = None,
    devices: int | None = None,
    config_file: ConfigFile = None,
) -> None:
    """Train a method on a few labelled images a class.

    Parameters
    ----------
    devices:
        Devices of this machine to train on at once, with the same result; one if not given, under torchrun and SLURM
        one for each process that they have started.
    """
    place = None if devices == 1 else started()
    first = place is None or place.rank == 0
    with steps(shown=first) as (on_step, on_fill):
        if resume_from is not None:
            if config is not None:
                raise InputError("--resume takes no other settings but --devices: a run goes on as it was begun")
            run = resume(resume_from, devices=devices, on_step=on_step, on_fill=on_fill)
        elif config is None:
            raise InputError("say what to train on: --data DATA --output RUN (see gopro train --help)")
        else:
            run = train(config, devices=devices, on_step=on_step, on_fill=on_fill)
    if not first:
        return  # the first process says it
    done = "is trained on" if run.method.learns else "needs no training; it is set up for"
    out.print(f"{escape(run.config.method)} {done} {len(run.method.classnames)} classes of {escape(run.data)}.")
    if skipped := read_cost(run.folder).skipped_steps:
        out.print(f"{skipped} steps were skipped, as their loss or gradient was not finite.")
    out.print(f"Next: gopro predict {escape(str(run.folder))} IMAGES", soft_wrap=True)


def eval_command(
    run: str,
    *,
    data: str | None = None,
    root: Path | None = None,
    classes: ClassHalf = "all",
    head: Literal["exact", "first-order"] = "exact",
    workers: int = 2,
    config_file: ConfigFile = None,
) -> None:
    """Accuracy of a run on the test images of a data set.

    Parameters
    ----------
    run:
        Folder of a trained run, or ORG/NAME on the Hugging Face Hub.
    data:
        Data set; the one that the run was trained on if not given.
    root:
        Directory that holds the benchmarks' folders; the run's own if not given.
    classes:
        Classes to tell apart: all, or the base or new half.
    head:
        With first-order, also that of the first-order head, which is built first if the run has none for these
        classes, and how far it agrees.
    workers:
        Processes that read images.
    """
    trained = load_run(run)
    dataset = trained.dataset(root) if data is None else load_dataset(data, root or trained.config.root)
    dataset = dataset.half(classes)
    with bar("images", len(dataset.test)) as advance:
        method = trained.method.for_classes(dataset.classnames)
        result = evaluate_images(method, dataset.test, workers=workers, on_progress=advance)
    row = {
        "data": dataset.name,
        "classes": classes,
        "method": trained.config.method,
        **evaluation_figures(result),
        "per_class": [
            {"class": name, "accuracy": None if accuracy is None else round(accuracy, 4)}
            for name, accuracy in zip(dataset.classnames, result.per_class, strict=True)
        ],
    }
    if head == "first-order":
        with bar("classes", len(dataset.classnames)) as advance:
            quick = load_or_build_head(trained, dataset.classnames, workers=workers, on_progress=advance)
        with bar("images", len(dataset.test)) as advance:
            by_head = evaluate_images(quick, dataset.test, workers=workers, on_progress=advance)
        agreement = Agreement.between(result.probabilities, by_head.probabilities)
        row["first_order"] = {
            **evaluation_figures(by_head),
            "terms": len(quick.expansion),
            "agreement": asdict(agreement),
        }
    path = trained.made / f"eval-{slug(dataset.name)}-{classes}.json"
    write_json(path, row)
    out.print(
        f"{escape(dataset.name)} {classes}: accuracy {result.accuracy:.2f} %, macro {result.macro_accuracy:.2f} %, "
        f"{result.n} images, {len(dataset.classnames)} classes, {result.seconds:.1f} s -> {escape(str(path))}",
        highlight=False,
        soft_wrap=True,
    )
    if head == "first-order":
        out.print(
            f"first-order head, {len(quick.expansion)} terms: accuracy {by_head.accuracy:.2f} %, macro "
            f"{by_head.macro_accuracy:.2f} %, {by_head.seconds:.1f} s; {agreement_in_words(agreement)}",
            highlight=False,
            soft_wrap=True,
        )
