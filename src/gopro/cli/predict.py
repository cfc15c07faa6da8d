"""`gopro predict`: names for images, and images sorted by them."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gopro.cli.console import ConfigFile, bar, class_names, err, out, plain_output, shown
from gopro.data.find_images import files_below, is_image
from gopro.data.folder import SPLIT_FILE
from gopro.errors import InputError
from gopro.inference.classifier import Answer, Classifier, Head, load
from gopro.inference.sort_images import UNSURE, Link, Sorter


def predict_command(
    run: str,
    images: Annotated[list[str], Parameter(allow_leading_hyphen=True)],  # for -
    *,
    classes: str | None = None,
    classes_file: Path | None = None,
    top_k: int = 5,
    json_output: Annotated[bool, Parameter(name="--json", negative=())] = False,
    csv_output: Annotated[bool, Parameter(name="--csv", negative=())] = False,
    sort_into: Path | None = None,
    min_confidence: float | None = None,
    link: Link | None = None,
    batch: int = 64,
    workers: int | None = None,
    head: Head = "exact",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    config_file: ConfigFile = None,
) -> None:
    """Names for images, with probabilities; with --sort-into, images sorted into folders by class.

    Images that cannot be read are listed at the end, and the exit code is then 1.

    Parameters
    ----------
    run:
        Folder of a trained run, or ORG/NAME on the Hugging Face Hub.
    images:
        ImageSource files, folders (with the folders in them), or - for a list of them on stdin, one a line.
    classes:
        Names to choose from, separated by commas, any you like; those of the training if not given.
    classes_file:
        File of such names, one a line.
    top_k:
        How many names an image.
    json_output:
        Print one JSON object an image.
    csv_output:
        Print a table with the columns path, rank, name and probability.
    sort_into:
        Folder to copy the images to, into a folder a class. Nothing that lies there is overwritten.
    min_confidence:
        With --sort-into: images whose likeliest class has a probability (0 to 1) below this go to _unsure.
    link:
        With --sort-into: make hard or symbolic links instead of copies.
    batch:
        Images that go through the image tower at once.
    workers:
        Threads that read images; one for each core, 16 at most, if not given.
    head:
        With first-order, no text is encoded for an image; the head is built first if the run has none for these names.
    device:
        Where to compute.
    """
    for word in images:
        if word.startswith("-") and word != "-":
            raise InputError(
                f"{word}: no such option, see gopro predict --help; for a file of that name write ./{word}"
            )
    if json_output and csv_output:
        raise InputError("--json and --csv: choose one")
    if sort_into is None and (link is not None or min_confidence is not None):
        raise InputError(f"{'--link' if link else '--min-confidence'} is for --sort-into: give a folder to sort into")
    if min_confidence is not None and not 0 <= min_confidence <= 1:
        raise InputError(f"--min-confidence {min_confidence}: give a probability from 0 to 1")
    names = class_names(classes, classes_file)
    classifier = load(run, device)
    if names is not None:
        classifier = classifier.for_classes(names)
    if head == "first-order":
        classifier = classifier.first_order()
    inputs = Inputs(images, ignored=sort_into)
    sorter = None
    if sort_into is not None:
        sorter = Sorter(sort_into, classifier.method.classnames, link=link, min_confidence=min_confidence or 0.0)
    try:
        with plain_output():
            if json_output:
                show = _as_json
            elif csv_output:
                show = _csv_writer()
            else:
                show = _as_text if sorter is None else _not_at_all
            _answer(classifier, inputs, sorter, show, top_k, batch, workers)
            if sorter is not None:
                _say_sorted(sorter, to_stdout=not json_output and not csv_output)
    finally:
        _say_left_out(inputs)
    if inputs.faults:
        sys.exit(1)


class Inputs:
    """The image files that the command line names, and what of it cannot be read.

    Attributes:
        count: how many images there are; None where they come from stdin, which is read as it comes.
        faults: a line on each image or folder that cannot be read.
        passed: how many files in folders are no images by name.
    """

    def __init__(self, given: Sequence[str], ignored: Path | None):
        self.faults: list[str] = []
        self.passed = 0
        self._ignored = ignored
        self._paths: Iterator[str] | list[str] = self._expanded(given)
        self.count = None
        if "-" not in given:
            self._paths = list(self._paths)
            self.count = len(self._paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def refuse(self, error: InputError) -> None:
        self.faults.append(str(error))

    def _expanded(self, given: Sequence[str]) -> Iterator[str]:
        for path in given:
            if path == "-":
                for line in _stdin_lines():
                    yield from self._files(line)
            else:
                yield from self._files(path)

    def _files(self, path: str) -> Iterator[str]:
        if not os.path.isdir(path):
            yield path
            return
        before, none = len(self.faults), True
        for file in files_below(Path(path), ignored=self._ignored, refuse=self.refuse):
            if is_image(file):
                none = False
                yield os.fspath(file)
            elif file.name != SPLIT_FILE:
                self.passed += 1
        if none and len(self.faults) == before:
            self.refuse(InputError(f"{path}: no images in this folder"))


def _stdin_lines() -> Iterator[str]:
    """Lines as they come. Read without Python's buffer, whose lock a thread that waits would hold when all ends."""
    rest = b""
    while chunk := os.read(0, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (os.fsdecode(line) for line in map(_stripped, lines) if line)
    if rest := _stripped(rest):
        yield os.fsdecode(rest)


def _stripped(line: bytes) -> bytes:
    return line.removesuffix(b"\r")


def _answer(
    classifier: Classifier,
    inputs: Inputs,
    sorter: Sorter | None,
    show: Callable[[Answer], None],
    top_k: int,
    batch: int,
    workers: int | None,
) -> None:
    """Shows and sorts the images one after the other; what cannot be read is kept in `inputs`."""
    if inputs.count == 0:
        return
    answers = classifier.stream(inputs, top_k, batch=batch, workers=workers)
    with bar("images", inputs.count) as advance:
        try:
            for answer in answers:
                advance(1)
                if answer.error is not None:
                    inputs.refuse(answer.error)
                    continue
                show(answer)
                if sorter is not None:
                    best = answer.predictions[0]
                    sorter.add(Path(answer.image), best.name, best.probability)
        finally:
            if sorter is not None:
                sorter.close()


def _as_text(answer: Answer) -> None:
    line = f"{answer.image}: {', '.join(f'{p.name} {p.probability:.1%}' for p in answer.predictions)}"
    print(shown(line) if sys.stdout.isatty() else line)


def _as_json(answer: Answer) -> None:
    names = [{"name": p.name, "probability": round(p.probability, 6)} for p in answer.predictions]
    line = json.dumps({"image": answer.image, "predictions": names}, ensure_ascii=False)
    try:
        line.encode()
    except UnicodeEncodeError:  # a path that is not UTF-8
        line = json.dumps({"image": answer.image, "predictions": names})
    print(line)


def _csv_writer() -> Callable[[Answer], None]:
    class Stdout:
        def write(self, text: str) -> int:
            return sys.stdout.write(text)  # the one there is now: a progress bar puts another in its place

    writer = csv.writer(Stdout(), lineterminator="\n")
    writer.writerow(("path", "rank", "name", "probability"))

    def show(answer: Answer) -> None:
        for rank, p in enumerate(answer.predictions, 1):
            writer.writerow((answer.image, rank, p.name, f"{p.probability:.6f}"))

    return show


def _not_at_all(answer: Answer) -> None:
    """Where images are sorted, their folders say it."""


def _say_sorted(sorter: Sorter, *, to_stdout: bool) -> None:
    lines = [
        f"{count:>7} {folder}/" + (f"  (less than {sorter.min_confidence:.0%} sure)" if folder == UNSURE else "")
        for folder, count in sorted(sorter.counts.items())
    ]
    already = f", {sorter.already} of them were there already" if sorter.already else ""
    lines.append(f"{sorter.counts.total():>7} images in {sorter.root}{already}")
    for line in lines:
        (out if to_stdout else err).print(line, markup=False, highlight=False, soft_wrap=True)


def _say_left_out(inputs: Inputs) -> None:
    if inputs.passed:
        files = "1 file" if inputs.passed == 1 else f"{inputs.passed} files"
        err.print(f"passed over {files} in the folders, no images by name", highlight=False, soft_wrap=True)
    if inputs.faults:
        err.print(f"{len(inputs.faults)} could not be read:", style="red", highlight=False, soft_wrap=True)
        for fault in inputs.faults:
            err.print(f"  {fault}", style="red", markup=False, highlight=False, soft_wrap=True)
