"""Test images with what each method says of them: where methods agree, and above all where they don't."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from PIL import Image

from gopro.benchmark.predictions import Predictions
from gopro.benchmark.report.experiment import Experiment, Group
from gopro.benchmark.report.palette import is_zeroshot
from gopro.data.dataset import ClassHalf, Dataset
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.runs.results import ResultRow

LARGEST_SIDE = 224
"""Of an embedded image, in pixels; larger ones are scaled down, so that the page stays small."""
IMAGES = 6
"""A group."""
GUESSES = 3

Right = Mapping[str, torch.Tensor]
"""[n] a method: whether its likeliest class is the true one."""


@dataclass(frozen=True)
class Card:
    """An image, and each method's likeliest classes with their probabilities, best first.

    Attributes:
        why: the reason why it is shown.
        url: the image, as a data: URL.
        where: data set and half of its classes, where there are several.
    """

    why: str
    url: str
    truth: str
    where: str
    predictions: Mapping[str, Sequence[tuple[str, float]]]


def cards(experiment: Experiment, group: Group, loaded: dict[str, Dataset | None]) -> list[Card]:
    """A group's images, of as many of its tests as can be; a note where a data set is not what it was.

    Args:
        loaded: data sets opened so far, by what they were asked for as, None where that failed.
    """
    sources = list(_sources(experiment, group, loaded))
    found: list[Card] = []
    taken: set[tuple[int, int]] = set()
    several = len({row["data"] for row in group.rows}) > 1
    for turn, (why, choose) in enumerate(_reasons(group.methods)):
        for place in range(len(sources)):
            at = (turn + place) % len(sources)
            dataset, said = sources[at]
            right = {method: own.top[:, 0] == own.labels for method, own in said.items()}
            fits = [i for i in choose(right).nonzero()[:, 0].tolist() if (at, i) not in taken]
            if fits:
                # The middle one: the first of each set is the same class over and over.
                index = fits[len(fits) // 2]
                taken.add((at, index))
                first = next(iter(said.values()))
                where = [*([dataset.name] if several else []), *([first.classes] if first.classes != "all" else [])]
                try:
                    url = data_url(dataset.test[index].image.open())
                except InputError as error:
                    experiment.notes.append(f"An image is not shown: {error}")
                    continue
                guesses = {method: _guesses(own, index) for method, own in said.items()}
                found.append(Card(why, url, dataset.classnames[first.labels[index]], ", ".join(where), guesses))
                break
        if len(found) == IMAGES:
            break
    return found


def _reasons(methods: Sequence[str]) -> list[tuple[str, Callable[[Right], torch.Tensor]]]:
    """Why an image may be shown, in order of preference, and the [n] mask of such images."""
    learned = [method for method in methods if not is_zeroshot(method)]
    zeroshot = [method for method in methods if is_zeroshot(method)][:1]
    lead = next((method for method in learned if method.split("[")[0] == "gopro"), learned[-1] if learned else None)
    found: list[tuple[str, Callable[[Right], torch.Tensor]]] = []

    def differ(right_one: str, wrong_one: str) -> None:
        def choose(right: Right) -> torch.Tensor:
            if right_one in right and wrong_one in right:
                return right[right_one] & ~right[wrong_one]
            return torch.zeros(0)

        found.append((f"{right_one} right, {wrong_one} wrong", choose))

    rivals = [method for method in learned if method != lead]
    for other in [*zeroshot, *rivals[:1]]:
        if lead is not None:
            differ(lead, other)
            differ(other, lead)
    everyone = "every method" if len(methods) > 1 else methods[0]
    found.append((f"{everyone} right", lambda right: torch.stack(list(right.values())).all(dim=0)))
    found.append((f"{everyone} wrong", lambda right: ~torch.stack(list(right.values())).any(dim=0)))
    return found + found[:1] + found[-1:]


def _sources(
    experiment: Experiment, group: Group, loaded: dict[str, Dataset | None]
) -> Iterator[tuple[Dataset, dict[str, Predictions]]]:
    """Data sets, as the tests had them, with each method's predictions under its first seed."""
    for methods in group.tests().values():
        said: dict[str, Predictions] = {}
        rows: list[ResultRow] = []
        for method in group.methods:
            for row in methods.get(method, [])[:1]:
                if own := experiment.predictions(row):
                    said[method] = own
                    rows.append(row)
        if said and (dataset := _dataset(experiment, rows[0], next(iter(said.values())), loaded)):
            labels = torch.tensor([sample.label for sample in dataset.test])
            same = {
                method: own
                for method, own in said.items()
                if own.classnames == dataset.classnames and torch.equal(own.labels, labels)
            }
            if same:
                yield dataset, same
            if len(same) < len(said):
                experiment.notes.append(
                    f"{rows[0]['data']} is not what it was when {', '.join(said.keys() - same.keys())} was tested: "
                    "no images of that are shown."
                )


def _dataset(
    experiment: Experiment, row: ResultRow, said: Predictions, loaded: dict[str, Dataset | None]
) -> Dataset | None:
    if said.data not in loaded:
        try:
            loaded[said.data] = load_dataset(said.data, experiment.root(row))
        except InputError as error:
            loaded[said.data] = None
            experiment.notes.append(f"No images of {row['data']} are shown: {error}")
    dataset = loaded[said.data]
    if dataset is None or said.classes not in get_args(ClassHalf):
        return None
    return dataset.half(said.classes)  # pyright: ignore[reportArgumentType]


def _guesses(said: Predictions, index: int) -> list[tuple[str, float]]:
    pairs = zip(said.top[index, :GUESSES].tolist(), said.probability[index, :GUESSES].tolist(), strict=True)
    return [(said.classnames[place], probability) for place, probability in pairs]


def data_url(image: Image.Image) -> str:
    """The image as a data: URL, WebP, at most LARGEST_SIDE pixels a side."""
    small = image.convert("RGB")
    small.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
