"""Compare an exported file with torch on real images, in probabilities and in time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gopro.data.dataset import ImageSource
from gopro.data.images.prefetch import decode_ahead
from gopro.data.images.transforms import make_view
from gopro.data.inputs import as_images
from gopro.errors import InputError
from gopro.inference.evaluate import logits_function
from gopro.inference.export.formats import Runner
from gopro.inference.export.graph import Graph
from gopro.inference.taylor_head import Agreement
from gopro.inference.taylor_head_file import evenly_spaced
from gopro.methods.base import Method
from gopro.runs.run import Run

MAX_IMAGES = 500
"""Number of images to compare on, at most."""
BATCH = 32
"""Images to classify at once."""


@dataclass(frozen=True)
class Comparison:
    """Agreement of an exported file with torch and the same head, and milliseconds per image in batches of 32."""

    agreement: Agreement
    file_ms: float
    torch_ms: float


def comparison_images(run: Run, path: Path | None) -> tuple[str, Sequence[ImageSource]]:
    """Return a description and the images: those at `path`, or by default test images of the run's data set.

    Raises:
        InputError: there are none.
    """
    if path is not None:
        if not path.expanduser().exists():
            raise InputError(f"{path}: there is no such image or folder of images; check --images")
        return str(path), evenly_spaced([*as_images(path.expanduser(), run.config.levels)[0]], MAX_IMAGES)
    advice = "give --images, a folder of images to compare the file with torch on"
    try:
        dataset = run.dataset().half(run.config.classes)
    except InputError as error:
        raise InputError(f"the run's data set is not available ({error}); {advice}") from error
    if not dataset.test:
        raise InputError(f"{dataset.name} has no test images: {advice}")
    return f"{dataset.name}, test", evenly_spaced([sample.image for sample in dataset.test], MAX_IMAGES)


@torch.no_grad()
def compare(
    method: Method,
    graph: Graph,
    runner: Runner,
    images: Sequence[ImageSource],
    on_progress: Callable[[int], None] = lambda done: None,
) -> Comparison:
    """Compare a file with the method as `Classifier` runs it, without the graph.

    Args:
        graph: from which the file was made; it prepares the input of `runner`.
        runner: the file.

    Raises:
        InputError: an image that cannot be read.
    """
    compute_logits = logits_function(method)
    file_probabilities: list[Tensor] = []
    torch_probabilities: list[Tensor] = []
    file_seconds = torch_seconds = 0.0
    for part in decode_ahead(images, make_view("eval", method.backbone.preprocess), batch=BATCH):
        views = torch.stack([_readable(view) for _, view in part])
        inputs = graph.inputs(views)
        if not file_probabilities:  # first calls do work that later ones do not: they are not timed
            runner(inputs)
            compute_logits(method.encode(views))
        start = time.perf_counter()
        file_probabilities.append(runner(inputs))
        middle = time.perf_counter()
        torch_probabilities.append(method.probabilities(compute_logits(method.encode(views))))
        file_seconds += middle - start
        torch_seconds += time.perf_counter() - middle
        on_progress(len(part))
    agreement = Agreement.between(torch.cat(torch_probabilities), torch.cat(file_probabilities))
    return Comparison(agreement, 1000 * file_seconds / len(images), 1000 * torch_seconds / len(images))


def _readable(view: Tensor | InputError) -> Tensor:
    if isinstance(view, InputError):
        raise view
    return view
