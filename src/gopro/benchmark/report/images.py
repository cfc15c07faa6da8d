"""Example test images with each method's predictions, chosen above all where methods disagree."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from PIL import Image

from gopro.benchmark.predictions import Predictions
from gopro.benchmark.report.experiment import Comparison, Experiment
from gopro.benchmark.report.palette import is_zeroshot
from gopro.data.dataset import ClassHalf, Dataset
from gopro.data.load_dataset import load_dataset, load_target
from gopro.data.match_classes import match_classes
from gopro.errors import InputError
from gopro.runs.results import ResultRow

MAX_SIDE = 224
"""Longest side of an embedded image in pixels; larger images are scaled down to keep the page small."""
CARDS_PER_COMPARISON = 6
CLASSES_PER_CARD = 3

LoadedDatasets = dict[tuple[str, bool], Dataset | None]
"""Data sets by their name or path and whether they are targets of a transfer; None where loading failed."""

Correct = Mapping[str, torch.Tensor]
"""A mask [n] for each method: the images that it classifies correctly."""


@dataclass(frozen=True)
class Card:
    """An example image with each method's likeliest classes and their probabilities, best first.

    Attributes:
        reason: why the image is shown: `gopro right, coop wrong`.
        url: the image as a data: URL.
        truth: name of its class.
        test: data set and half of its classes, if the comparison has several.
    """

    reason: str
    url: str
    truth: str
    test: str
    predictions: Mapping[str, Sequence[tuple[str, float]]]


def cards(experiment: Experiment, comparison: Comparison, loaded: LoadedDatasets) -> list[Card]:
    """Choose the example images of a comparison from as many of its tests as possible.

    A data set that has changed or is missing is skipped, with a note.

    Args:
        loaded: data sets loaded so far; this call adds to it.
    """
    sources = list(_sources(experiment, comparison, loaded))
    chosen: list[Card] = []
    taken: set[tuple[int, int]] = set()
    several = len({row["data"] for row in comparison.rows}) > 1
    for turn, (reason, choose) in enumerate(_reasons(comparison.methods)):
        for offset in range(len(sources)):
            number = (turn + offset) % len(sources)
            dataset, by_method = sources[number]
            correct = {method: own.top[:, 0] == own.labels for method, own in by_method.items()}
            candidates = [i for i in choose(correct).nonzero()[:, 0].tolist() if (number, i) not in taken]
            if not candidates:
                continue
            # Take the middle one; the first of each test would be the same class over and over.
            index = candidates[len(candidates) // 2]
            taken.add((number, index))
            first = next(iter(by_method.values()))
            test = [*([dataset.name] if several else []), *([first.classes] if first.classes != "all" else [])]
            try:
                url = data_url(dataset.test[index].image.open())
            except InputError as error:
                experiment.notes.append(f"An image is not shown: {error}")
                continue
            top = {method: _top_classes(own, index) for method, own in by_method.items()}
            chosen.append(Card(reason, url, dataset.classnames[first.labels[index]], ", ".join(test), top))
            break
        if len(chosen) == CARDS_PER_COMPARISON:
            break
    return chosen


def _reasons(methods: Sequence[str]) -> list[tuple[str, Callable[[Correct], torch.Tensor]]]:
    """Return the reasons to show an image, in order of preference, each with the [n] mask of such images."""
    trained = [method for method in methods if not is_zeroshot(method)]
    zeroshot = [method for method in methods if is_zeroshot(method)][:1]
    lead = next((method for method in trained if method.split("[")[0] == "gopro"), trained[-1] if trained else None)
    reasons: list[tuple[str, Callable[[Correct], torch.Tensor]]] = []

    def add_difference(right: str, wrong: str) -> None:
        def choose(correct: Correct) -> torch.Tensor:
            if right in correct and wrong in correct:
                return correct[right] & ~correct[wrong]
            return torch.zeros(0)

        reasons.append((f"{right} right, {wrong} wrong", choose))

    rivals = [method for method in trained if method != lead]
    for other in [*zeroshot, *rivals[:1]]:
        if lead is not None:
            add_difference(lead, other)
            add_difference(other, lead)
    everyone = "all methods" if len(methods) > 1 else methods[0]
    reasons.append((f"{everyone} right", lambda correct: torch.stack(list(correct.values())).all(dim=0)))
    reasons.append((f"{everyone} wrong", lambda correct: ~torch.stack(list(correct.values())).any(dim=0)))
    return reasons + reasons[:1] + reasons[-1:]


def _sources(
    experiment: Experiment, comparison: Comparison, loaded: LoadedDatasets
) -> Iterator[tuple[Dataset, dict[str, Predictions]]]:
    """Yield the data set of each test with the predictions of each method's first seed."""
    for methods in comparison.tests().values():
        by_method: dict[str, Predictions] = {}
        rows: list[ResultRow] = []
        for method in comparison.methods:
            for row in methods.get(method, [])[:1]:
                if predictions := experiment.predictions(row):
                    by_method[method] = predictions
                    rows.append(row)
        if by_method and (dataset := _dataset(experiment, rows[0], next(iter(by_method.values())), loaded)):
            labels = torch.tensor([sample.label for sample in dataset.test])
            unchanged = {
                method: own
                for method, own in by_method.items()
                if own.classnames == dataset.classnames and torch.equal(own.labels, labels)
            }
            if unchanged:
                yield dataset, unchanged
            if len(unchanged) < len(by_method):
                experiment.notes.append(
                    f"{rows[0]['data']} has changed since {', '.join(by_method.keys() - unchanged.keys())} was tested "
                    "on it, so no example images are shown of that test."
                )


def _dataset(
    experiment: Experiment, row: ResultRow, predictions: Predictions, loaded: LoadedDatasets
) -> Dataset | None:
    is_target = row["data"] != row["source"]
    key = predictions.data, is_target
    if key not in loaded:
        try:
            black_white = (row.get("made_with") or {}).get("levels")
            levels = None if black_white is None else (black_white[0], black_white[1])
            load = load_target if is_target else load_dataset
            loaded[key] = load(predictions.data, experiment.data_root(row), levels=levels)
        except InputError as error:
            loaded[key] = None
            experiment.notes.append(f"No images of {row['data']} are shown: {error}")
    dataset = loaded[key]
    if dataset is None or predictions.classes not in get_args(ClassHalf):
        return None
    part = dataset.half(predictions.classes)  # pyright: ignore[reportArgumentType]
    if row["protocol"] == "domain-generalization" and part.classnames != predictions.classnames:
        part = match_classes(part, predictions.classnames).dataset  # a folder, tested over the classes of the source
    return part


def _top_classes(predictions: Predictions, index: int) -> list[tuple[str, float]]:
    classes = predictions.top[index, :CLASSES_PER_CARD].tolist()
    probabilities = predictions.probability[index, :CLASSES_PER_CARD].tolist()
    return [(predictions.classnames[c], probability) for c, probability in zip(classes, probabilities, strict=True)]


def data_url(image: Image.Image) -> str:
    """Encode the image as WebP with sides of at most `MAX_SIDE` pixels, in a data: URL."""
    small = image.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
