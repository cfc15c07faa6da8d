"""The command line: what stands in the config dataclasses, as commands. The one place that prints."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import cyclopts
import yaml
from cyclopts import App, Parameter
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gopro import demo as demonstration
from gopro import report, sweep
from gopro.classifier import Classifier
from gopro.config import BenchmarkConfig, SweepConfig, TrainConfig, TransferConfig
from gopro.data import load_dataset
from gopro.data.dataset import ClassHalf
from gopro.errors import InputError
from gopro.evaluate import encode_samples, evaluate
from gopro.fit import Step
from gopro.run import load_run, slug, write_json
from gopro.sweep.worker import summary
from gopro.train import resume, train

app = App(
    name="gopro",
    help="Prompt learning for CLIP with self-supervision.",
    version_flags=["--version"],
    default_parameter=Parameter(consume_multiple=True),
)
benchmark = App(name="benchmark", help="Train and evaluate methods by the field's protocols.")
app.command(benchmark)
out, err = Console(), Console(stderr=True)

Flat = Parameter(name="*")
ConfigFile = Annotated[Path | None, Parameter(name="--config", help="YAML file of these settings; flags go over it.")]
"""Read by `main` before the command is parsed; here for the help."""


@app.command(name="train")
def train_command(
    config: Annotated[TrainConfig | None, Flat] = None,
    *,
    resume_from: Annotated[Path | None, Parameter(name="--resume", help="Go on with a run that was cut off.")] = None,
    config_file: ConfigFile = None,
) -> None:
    """Train a method on a few labelled pictures a class."""
    with _steps() as on_step:
        if resume_from is not None:
            if config is not None:
                raise InputError("--resume takes no other settings: a run goes on as it was begun")
            run = resume(resume_from, on_step=on_step)
        elif config is None:
            raise InputError("say what to train on: --data DATA --output RUN (see gopro train --help)")
        else:
            run = train(config, on_step=on_step)
    out.print(f"{escape(run.config.method)} is trained on {len(run.method.classnames)} classes of {escape(run.data)}.")
    out.print(f"Next: gopro predict {escape(str(run.folder))} PICTURE...", soft_wrap=True)


@app.command(name="eval")
def eval_command(
    run: Path,
    *,
    data: str | None = None,
    root: Path | None = None,
    classes: ClassHalf = "all",
    workers: int = 2,
    config_file: ConfigFile = None,
) -> None:
    """Accuracy of a run on the test pictures of a data set.

    Parameters
    ----------
    run:
        Folder of a trained run.
    data:
        Data set; the one that the run was trained on if not given.
    root:
        Directory that holds the benchmarks' folders; the run's own if not given.
    classes:
        Classes to tell apart: all, or the base or new half.
    workers:
        Processes that read pictures.
    """
    trained = load_run(run)
    dataset = load_dataset(data or trained.config.data, root or trained.config.root).half(classes)
    with _bar("pictures", len(dataset.test)) as advance:
        method = trained.method.for_classes(dataset.classnames)
        result = evaluate(method, encode_samples(method, dataset.test, workers=workers, on_progress=advance))
    row = {
        "data": dataset.name,
        "classes": classes,
        "method": trained.config.method,
        **summary(result),
        "per_class": [
            {"class": name, "accuracy": None if accuracy is None else round(accuracy, 4)}
            for name, accuracy in zip(dataset.classnames, result.per_class, strict=True)
        ],
    }
    path = run / f"eval-{slug(dataset.name)}-{classes}.json"
    write_json(path, row)
    out.print(
        f"{escape(dataset.name)} {classes}: accuracy {result.accuracy:.2f} %, macro {result.macro_accuracy:.2f} %, "
        f"{result.n} pictures, {len(dataset.classnames)} classes, {result.seconds:.1f} s -> {escape(str(path))}",
        highlight=False,
        soft_wrap=True,
    )


@app.command(name="predict")
def predict_command(
    run: Path,
    pictures: Annotated[list[Path], Parameter(negative=())],
    *,
    classes: str | None = None,
    top: int = 5,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
    config_file: ConfigFile = None,
) -> None:
    """Names for pictures, with probabilities.

    Parameters
    ----------
    run:
        Folder of a trained run.
    pictures:
        Picture files.
    classes:
        Names to choose from, separated by commas, any you like; those of the training if not given.
    top:
        How many names a picture.
    json_output:
        One JSON object a picture.
    """
    if top < 1:
        raise InputError(f"top is {top}: ask for at least 1 name")
    classifier = Classifier(load_run(run).method)
    if classes is not None:
        classifier = classifier.for_classes([name.strip() for name in classes.split(",") if name.strip()])
    for picture in pictures:
        predictions = classifier.predict(picture, top)
        if json_output:
            names = [{"name": p.name, "probability": round(p.probability, 6)} for p in predictions]
            print(json.dumps({"picture": str(picture), "predictions": names}, ensure_ascii=False))
        else:
            listed = ", ".join(f"{p.name} {p.probability:.1%}" for p in predictions)
            out.print(f"{escape(str(picture))}: {escape(listed)}", highlight=False, soft_wrap=True)


@benchmark.command(name="base-to-new")
def base_to_new_command(config: Annotated[BenchmarkConfig, Flat], *, config_file: ConfigFile = None) -> None:
    """Train on the base classes, test on base and new classes.

    Without --data and --suite it runs on the embedded benchmark.
    """
    _benchmark("base-to-new", config)


@benchmark.command(name="cross-dataset")
def cross_dataset_command(config: Annotated[TransferConfig, Flat], *, config_file: ConfigFile = None) -> None:
    """Train on all classes of one data set, test on others.

    Without --source and --suite it runs on the embedded benchmark.
    """
    _benchmark("cross-dataset", config)


@benchmark.command(name="domain-generalization")
def domain_generalization_command(config: Annotated[TransferConfig, Flat], *, config_file: ConfigFile = None) -> None:
    """Train on all classes of one data set, test on the same things in other styles.

    Without --source and --suite it runs on the embedded benchmark.
    """
    _benchmark("domain-generalization", config)


@benchmark.command(name="few-shot")
def few_shot_command(config: Annotated[BenchmarkConfig, Flat], *, config_file: ConfigFile = None) -> None:
    """Train on 1, 2, 4, 8 and 16 pictures of every class, test on all classes.

    Without --data and --suite it runs on the embedded benchmark.
    """
    _benchmark("few-shot", config)


@app.command(name="report")
def report_command(folder: Path) -> None:
    """Write report.html, tables.md, tables.tex and plots/ from the results in a folder.

    Parameters
    ----------
    folder:
        The --output of gopro benchmark.
    """
    page = report.write_report(folder)
    out.print(f"{escape(str(page))}, with tables.md, tables.tex and plots/ beside it", highlight=False, soft_wrap=True)


@app.command(name="demo")
def demo_command(*, output: Path = Path("runs/demo")) -> None:
    """Base-to-new on the embedded benchmark, with a report.

    Parameters
    ----------
    output:
        Folder for the results, the runs and report.html.
    """
    config = replace(demonstration.CONFIG, output=output)
    out.print(demonstration.INTRO, highlight=False)
    _benchmark("base-to-new", config, then_report=False)
    steps = demonstration.next_steps(config)
    page = report.write_report(output, title=demonstration.TITLE, next_steps=steps)
    out.print(f"\nReport with pictures: {page}\n", highlight=False, soft_wrap=True)
    for step in steps:
        out.print(escape(step.replace("`", "")), highlight=False, soft_wrap=True)


def _benchmark(protocol: str, config: SweepConfig, *, then_report: bool = True) -> None:
    """Runs a protocol, shows its tables, and exits with code 1 where runs failed."""
    with _steps() as on_step:
        command = "gopro " + shlex.join(sys.argv[1:])
        outcome = sweep.benchmark(protocol, config, command=command, on_event=_say, on_step=on_step)
    for table in report.tables(outcome.rows):
        out.print(report.rich_table(table))
    folder = escape(str(config.output))
    out.print(f"{len(outcome.rows)} evaluations in {folder}/results.jsonl", highlight=False, soft_wrap=True)
    if outcome.failures:
        err.print(
            f"{len(outcome.failures)} runs failed; the same command tries them again. Their tracebacks are in "
            f"{folder}/failures.jsonl",
            style="red",
            highlight=False,
            soft_wrap=True,
        )
        sys.exit(1)
    if then_report:
        out.print(f"Next: gopro report {folder}", highlight=False, soft_wrap=True)


def _say(event: sweep.Event) -> None:
    """One line for what a sweep says of itself."""
    left = "" if event.seconds_left is None else f", {_duration(event.seconds_left)} to go"
    if event.job is None:
        there = f"; {event.found} are there already" if event.found else ""
        err.print(f"{event.runs} runs to do{there}", highlight=False)
        return
    job = event.job
    about = f"{escape(job.train.method)} on {escape(job.tests[0].key.source)}"
    if job.train.shots:
        about += f", {job.train.shots} shots, seed {job.train.seed}"
    if event.kind == "started":
        err.print(f"{about} begins ({event.ended} of {event.runs} runs done{left})", highlight=False)
    elif event.kind == "failed":
        err.print(f"{about} failed: {escape(event.error or '')}", style="red", highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    """Roughly how long, for a person."""
    for limit, size, unit in ((90, 1, "s"), (90 * 60, 60, "min"), (36 * 3600, 3600, "h")):
        if seconds < limit:
            return f"about {max(1, round(seconds / size))} {unit}"
    return f"about {seconds / 86400:.0f} days"


@contextmanager
def _steps() -> Iterator[Callable[[Step], None]]:
    """A progress bar over training steps, with loss terms, learning rate and the time left."""
    columns = (
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.description}"),
    )
    progress = Progress(*columns, console=err, transient=True, disable=not err.is_terminal)
    tasks: list[TaskID] = []

    def on_step(step: Step) -> None:
        if not tasks:
            progress.start()
            tasks.append(progress.add_task("", total=step.steps))
        if step.step % 10 == 1:  # reading a loss waits for the device
            terms = "  ".join(f"{name} {value.item():.3f}" for name, value in step.terms.items())
            progress.update(tasks[0], description=f"epoch {step.epoch + 1}  {terms}  lr {step.lr:.1e}")
        progress.update(tasks[0], completed=step.step)
        if step.step == step.steps:
            progress.remove_task(tasks.pop())
            progress.stop()

    try:
        yield on_step
    finally:
        if tasks:
            progress.stop()


@contextmanager
def _bar(what: str, total: int) -> Iterator[Callable[[int], None]]:
    columns = (TextColumn(what), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as progress:
        task = progress.add_task("", total=total)
        yield lambda done: progress.advance(task, done)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command. Bad input is one line on stderr and exit code 2, never a traceback."""
    tokens = list(sys.argv[1:] if arguments is None else arguments)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(?!gopro)")
    try:
        _use_config_file(tokens)
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except InputError as error:
        err.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except cyclopts.CycloptsError as error:
        err.print(f"error: {' '.join(str(error).split())}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("stopped; what is written stays, and the same command or --resume goes on from it")
        sys.exit(130)


def _use_config_file(tokens: list[str]) -> None:
    """Lets a `--config FILE` among the tokens give the command's settings, under the flags."""
    path = None
    for i, token in enumerate(tokens):
        if token == "--config" or token.startswith("--config="):
            path = Path(token.partition("=")[2] or (tokens[i + 1] if i + 1 < len(tokens) else ""))
    app.config = ()
    if path is None:
        return
    if not path.is_file():
        raise InputError(f"--config {path}: no such file")
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"--config {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"--config {path}: expected settings as `key: value` lines")
    app.config = (cyclopts.config.Yaml(path, use_commands_as_keys=False),)


if __name__ == "__main__":
    main()
