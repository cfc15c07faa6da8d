"""A run as a file, which is left behind only if it says what torch says of real images."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from gopro.data.dataset import ImageSource
from gopro.data.inputs import as_images
from gopro.data.prefetch import decode_ahead
from gopro.data.transforms import make_view
from gopro.errors import InputError
from gopro.files import write_atomically
from gopro.inference.classifier import Classifier, load
from gopro.inference.evaluate import text_depends_on_image
from gopro.inference.export.formats import FORMATS, FormatName, Runner
from gopro.inference.export.graph import Graph, tokens_of_own_text
from gopro.inference.taylor_head import Agreement, TaylorHead, constant_head
from gopro.inference.taylor_head_file import evenly_spaced
from gopro.methods.base import Method
from gopro.runs.run import Run

HeadWish = Literal["auto", "exact", "first-order"]

MOST_TOKENS = 512
"""Most tokens that the prompts of all classes may have together for `auto` to put the text tower into the graph: on
ViT-B/16 it takes as many operations for them (39 G) as the image tower does (35 G)."""
MOST_IMAGES = 500
"""Most images that a file is checked on."""
TOLERANCE = 1e-3
"""Largest difference of a probability from torch's that a file may have."""
BATCH = 32
"""Images that go through at once when a file is checked."""


@dataclass(frozen=True)
class Exported:
    """A file that was written, and how it did.

    Attributes:
        path: where it is.
        size: of the file, in bytes.
        about: the JSON that it carries, see docs/export.md.
        agreement: of the file with torch and the same head, on real images.
        milliseconds: an image, of the file in its runtime and of torch, in batches of 32.
    """

    path: Path
    size: int
    about: dict[str, Any]
    agreement: Agreement
    milliseconds: tuple[float, float]


def export_run(
    run: str | Path,
    classnames: Sequence[str] | None = None,
    *,
    format: FormatName = "onnx",
    head: HeadWish = "auto",
    inside: bool = False,
    output: str | Path | None = None,
    images: str | Path | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Exported:
    """Writes a run's classifier over fixed class names to a file that needs no GOPro.

    Args:
        run: folder of a trained run, or `ORG/NAME` for one on the Hugging Face Hub.
        classnames: any; those of the training if not given.
        format: `onnx`, or `torch` for `torch.export.load`.
        head: `exact` or `first-order`, see docs/export.md; `auto` takes the exact one where the text takes nothing of a
            image or the prompts are `MOST_TOKENS` long together at most, and the first-order one otherwise.
        inside: give the graph 8-bit images and normalise them inside.
        output: the file; `model.onnx` or `model.pt2` in the run's folder if not given (in the current one, if the run
            is on the Hub).
        images: an image or a folder of them to check the file on; at most 500 test images of the run's data if
            not given.
        on_progress: told how many images have been compared after each part of them.

    Raises:
        InputError: a wish of a kind that there is not; packages that are not installed; a file that is there already;
            no images to check on; a head that cannot be had; a file that does not agree with torch, of which nothing
            is left.
    """
    if format not in FORMATS:
        raise InputError(f"format {format!r}: choose one of {', '.join(FORMATS)}")
    if head not in get_args(HeadWish):
        raise InputError(f"head {head!r}: choose one of {', '.join(get_args(HeadWish))}")
    kind = FORMATS[format]
    kind.check_packages()
    folder = Path(run).expanduser()
    beside = folder if folder.is_dir() else Path()  # a run on the Hub has no folder of the user's
    path = beside / f"model{kind.suffix}" if output is None else Path(output).expanduser()
    if path.exists():
        raise InputError(f"{path} is there already: remove it, or give another --output")
    if output is not None and not path.absolute().parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}; make it first")
    classifier = load(run, "cpu")
    trained = classifier.run
    assert trained is not None
    if classnames is not None:
        classifier = classifier.for_classes(classnames)
    named, compared = _images(trained, images)
    method = with_head(classifier, head).eval()
    about = describe(trained, method, inside=inside)
    graph = Graph(method, inside=inside)
    model = kind.convert(graph.trace())
    runner = kind.open(kind.pack(model, _text(about)))
    checked, milliseconds = compare(method, graph, runner, compared, on_progress)
    if not checked.max <= TOLERANCE:  # so that NaN is refused too
        raise InputError(
            f"no file was written: on {checked.images} images {kind.runtime} is up to {checked.max:.2g} from "
            f"torch in a probability, more than {TOLERANCE:g}; try another --format or --head, and please report it "
            f"({trained.config.method} on {method.backbone.name})"
        )
    about["check"] = {"of": named, **asdict(checked)}
    content = kind.pack(model, _text(about))  # what was checked, with what came of it
    write_atomically(path, content)
    return Exported(path, len(content), about, checked, milliseconds)


def describe(run: Run, method: Method, *, inside: bool) -> dict[str, Any]:
    """What a file says of itself, as docs/export.md explains it."""
    preprocess, backbone = method.backbone.preprocess, method.backbone
    side = preprocess.size
    head: dict[str, Any] = {"kind": "exact"}
    if isinstance(method, TaylorHead) and method.agreement is not None:
        head = {"kind": "first-order", "terms": len(method.expansion), "agreement": asdict(method.agreement)}
    return {
        "gopro": version("gopro"),
        "method": run.config.method,
        "data": run.data,
        "backbone": {"name": backbone.name, "fingerprint": backbone.fingerprint()},
        "classnames": list(method.classnames),
        "head": head,
        "input": f"uint8 [batch, {side}, {side}, 3]" if inside else f"float32 [batch, 3, {side}, {side}]",
        "preprocess": {
            "size": side,
            "resize_mode": preprocess.resize_mode,
            "interpolation": "bilinear" if preprocess.interpolation == "bilinear" else "bicubic",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "inside": ["scale", "normalise"] if inside else [],
        },
    }


@torch.no_grad()
def compare(
    method: Method,
    graph: Graph,
    runner: Runner,
    inputs: Sequence[ImageSource],
    on_progress: Callable[[int], None] = lambda done: None,
) -> tuple[Agreement, tuple[float, float]]:
    """A file beside torch on real images, which is the method as a `Classifier` runs it, not the graph.

    Returns: their agreement; milliseconds an image, of the file and of torch.

    Raises:
        InputError: an image that cannot be read.
    """
    by_file: list[Tensor] = []
    by_torch: list[Tensor] = []
    seconds = [0.0, 0.0]
    for part in decode_ahead(inputs, make_view("eval", method.backbone.preprocess), batch=BATCH):
        images = torch.stack([_readable(image) for _, image in part])
        given = graph.given(images)
        if not by_file:  # what is only done at a first call is not timed
            runner(given)
            method.logits(method.encode(images))
        begun = time.perf_counter()
        by_file.append(runner(given))
        between = time.perf_counter()
        by_torch.append(method.logits(method.encode(images)).float().softmax(dim=-1))
        seconds[0] += between - begun
        seconds[1] += time.perf_counter() - between
        on_progress(len(part))
    agreement = Agreement.between(torch.cat(by_torch), torch.cat(by_file))
    of_file, of_torch = (1000 * spent / len(inputs) for spent in seconds)
    return agreement, (of_file, of_torch)


def with_head(classifier: Classifier, head: HeadWish) -> Method:
    """The method with the head that is wished for; where the text takes nothing of an image there is but one."""
    method = classifier.method
    if isinstance(method, TaylorHead):
        return method
    if not text_depends_on_image(method):
        return constant_head(method, method.classnames)
    if head == "exact":
        return method
    tokens = tokens_of_own_text(method)
    if head == "auto" and tokens is not None and tokens <= MOST_TOKENS:
        return method
    return classifier.first_order().method


def _images(run: Run, given: str | Path | None) -> tuple[str, Sequence[ImageSource]]:
    """What to check a file on, in words and one by one."""
    if given is not None:
        if not Path(given).expanduser().exists():
            raise InputError(f"{given}: there is no such image or folder of images; check --images")
        return str(given), evenly_spaced([*as_images(Path(given).expanduser())[0]], MOST_IMAGES)
    advice = "give --images, a folder of images to check the file on"
    try:
        dataset = run.dataset().half(run.config.classes)
    except InputError as error:
        raise InputError(f"the run's data is not at hand ({error}); {advice}") from error
    if not dataset.test:
        raise InputError(f"{dataset.name} has no test images: {advice}")
    return f"{dataset.name}, test", evenly_spaced([sample.image for sample in dataset.test], MOST_IMAGES)


def _readable(image: Tensor | InputError) -> Tensor:
    if isinstance(image, InputError):
        raise image
    return image


def _text(about: dict[str, Any]) -> str:
    return json.dumps(about, ensure_ascii=False)
