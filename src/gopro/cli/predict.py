"""`gopro predict`: class names for images, and images sorted by class."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gopro.cli.backbone_line import print_backbone
from gopro.cli.console import bar, err, out, plain_output, printable
from gopro.cli.image_paths import ImagePaths
from gopro.cli.parameters import (
    Classes,
    ClassesFile,
    ConfigFile,
    Device,
    RunBackbone,
    RunName,
    Temperature,
    class_names,
)
from gopro.errors import InputError

if TYPE_CHECKING:
    from gopro.inference.classifier import Answer
    from gopro.inference.sort_images import Sorter
    from gopro.methods.base import Method


def predict_command(
    run: RunName,
    images: Annotated[list[str], Parameter(allow_leading_hyphen=True)],  # for -
    *,
    classes: Classes = None,
    classes_file: ClassesFile = None,
    top_k: int = 5,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
    csv_output: Annotated[bool, Parameter(name="--csv", negative=())] = False,
    sort_into: Path | None = None,
    min_confidence: float | None = None,
    link: Literal["hard", "symbolic"] | None = None,
    batch: int = 64,
    workers: int | None = None,
    head: Literal["exact", "first-order"] = "exact",
    temperature: Temperature = None,
    device: Device = "auto",
    backbone: RunBackbone = None,
    config_file: ConfigFile = None,
) -> None:
    """Classify images, or with --sort-into copy them into one folder per class.

    Images that cannot be read are listed at the end, and the exit code is then 1.

    Parameters
    ----------
    images:
        Image files, folders (with their subfolders), or - to read paths from stdin, one per line.
    top_k:
        Number of classes to print per image.
    json_output:
        Print one JSON object per image.
    csv_output:
        Print CSV with the columns path, rank, name and probability.
    sort_into:
        Copy the images to this folder, into one subfolder per class. Existing files are never overwritten.
    min_confidence:
        With --sort-into: put an image into _unsure if its most likely class has a probability (0 to 1) below this.
    link:
        With --sort-into: make hard or symbolic links instead of copies.
    batch:
        Images per pass through the image tower.
    workers:
        Threads that read images. Default: one per core, at most 16.
    head:
        With first-order, use the first-order head, which is faster: it encodes no text per image. It is built first if
        the run has none for these classes.
    """
    for word in images:
        if word.startswith("-") and word != "-":
            raise InputError(f"{word}: no such option, see gopro predict --help; if it is a file, write it as ./{word}")
    if json_output and csv_output:
        raise InputError("--json and --csv: give one of them")
    if sort_into is None and (link is not None or min_confidence is not None):
        raise InputError(f"{'--link' if link else '--min-confidence'} needs --sort-into FOLDER")
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise InputError(f"--min-confidence {min_confidence}: give a probability from 0 to 1")
    if Path(run).is_file():
        raise InputError(f"{run} is a file, not the folder of a run: the run comes first, gopro predict RUN {run}")
    names = class_names(classes, classes_file)
    from gopro.inference.classifier import load
    from gopro.inference.sort_images import Sorter
    from gopro.runs.calibration import check_temperature

    classifier = load(run, device, backbone=backbone)
    if temperature is not None:
        classifier.method.temperature = check_temperature(temperature)
    if names is not None:
        classifier = classifier.for_classes(names)
    if head == "first-order":
        classifier = classifier.first_order()
    paths = ImagePaths(images, ignored=sort_into)
    sorter = None
    if sort_into is not None:
        sorter = Sorter(sort_into, classifier.method.classnames, link=link, min_confidence=min_confidence or 0.0)
    try:
        with plain_output():
            show = _printer(json_output, csv_output, sorting=sorter is not None)
            if paths.count != 0:
                answers = classifier.stream(paths, top_k, batch=batch, workers=workers)
                _show_and_sort(answers, paths, show, sorter)
            if sorter is not None:
                _print_sorted(sorter, to_stdout=not json_output and not csv_output)
        if not json_output and not csv_output:
            print_backbone(classifier.method.backbone.name, screen=err)
            if names is None:
                _print_other_names(classifier.method)
    finally:
        if paths.skipped:
            files = "1 file" if paths.skipped == 1 else f"{paths.skipped} files"
            err.print_line(f"skipped {files} without an image suffix")
        if paths.errors:
            err.print_line(f"{len(paths.errors)} could not be read:", "red")
            for error in paths.errors:
                err.print_line(f"  {error}", "red")
    if paths.errors:
        sys.exit(1)


def _print_other_names(method: Method) -> None:
    """Print the classes that only images without labels may show, as no image is taken for one of them."""
    from gopro.runs.describe_run import list_classes

    trained = method.trained_names
    if others := method.unlabeled_names[len(trained) :]:
        err.print_line(
            f"Chose among the {len(trained)} trained classes. Images without labels taught it {list_classes(others)}; "
            "to choose among these too, name all classes with --classes"
        )


def _show_and_sort(
    answers: Iterable[Answer], paths: ImagePaths, show: Callable[[Answer], None], sorter: Sorter | None
) -> None:
    """Print and sort one image after the other; errors go to `paths`."""
    with bar("images", paths.count) as advance:
        try:
            for answer in answers:
                advance(1)
                if answer.error is not None:
                    paths.add_error(answer.error)
                    continue
                show(answer)
                if sorter is not None:
                    best = answer.predictions[0]
                    sorter.add(Path(answer.image), best.name, best.probability)
        finally:
            if sorter is not None:
                sorter.close()


def _printer(json_output: bool, csv_output: bool, *, sorting: bool) -> Callable[[Answer], None]:
    """Return the function that prints an answer in the format asked for."""
    if json_output:
        return _print_json
    if csv_output:
        return _csv_printer()
    return (lambda answer: None) if sorting else _print_text


def _print_text(answer: Answer) -> None:
    line = f"{answer.image}: {', '.join(f'{p.name} {p.probability:.1%}' for p in answer.predictions)}"
    print(printable(line) if sys.stdout.isatty() else line)


def _print_json(answer: Answer) -> None:
    names = [{"name": p.name, "probability": round(p.probability, 6)} for p in answer.predictions]
    line = json.dumps({"image": answer.image, "predictions": names}, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # a path that is not UTF-8
        line = json.dumps({"image": answer.image, "predictions": names})
    print(line)


def _csv_printer() -> Callable[[Answer], None]:
    class Stdout:
        def write(self, text: str) -> int:
            return sys.stdout.write(text)  # looked up each time: a progress bar replaces sys.stdout

    writer = csv.writer(Stdout(), lineterminator="\n")
    writer.writerow(("path", "rank", "name", "probability"))

    def show(answer: Answer) -> None:
        for rank, p in enumerate(answer.predictions, 1):
            writer.writerow((answer.image, rank, p.name, f"{p.probability:.6f}"))

    return show


def _print_sorted(sorter: Sorter, *, to_stdout: bool) -> None:
    """Print how many images each folder received."""
    from gopro.inference.sort_images import UNSURE

    screen = out if to_stdout else err
    for folder, count in sorted(sorter.counts.items()):
        screen.print_line(
            f"{count:>7} {folder}/" + (f"  (probability below {sorter.min_confidence:.0%})" if folder == UNSURE else "")
        )
    already = f", {sorter.already} of them were there already" if sorter.already else ""
    screen.print_line(f"{sorter.counts.total():>7} images in {sorter.root}{already}")
