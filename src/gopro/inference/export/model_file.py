"""Write a run's classifier to a model file, which is only kept if it agrees with torch on real images."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from gopro.errors import InputError
from gopro.files import write_atomically
from gopro.inference.classifier import Classifier, load
from gopro.inference.export.compare import Comparison, compare, comparison_images
from gopro.inference.export.formats import FORMATS, FormatName
from gopro.inference.export.graph import Graph, prompt_tokens
from gopro.inference.taylor_head import TaylorHead, constant_head
from gopro.methods.base import Method
from gopro.runs.run import Run
from gopro.settings import AnyPath, settings

ExportHead = Literal["auto", "exact", "first-order"]

MAX_EXACT_TOKENS = 512
"""Total length of all prompts up to which `auto` exports the text tower. On ViT-B/16, encoding 512 tokens takes 39 G
operations and an image 35 G, so the exact head at most doubles the time per image."""
TOLERANCE = 1e-3
"""Largest difference of a probability from torch that is accepted."""


@settings
class ExportSettings:
    """Settings of an exported file, see docs/export.md."""

    format: FormatName = "onnx"
    """`onnx`, or `torch` for `torch.export.load`."""
    head: ExportHead = "auto"
    """`exact`, `first-order`, or `auto`, which takes the exact head if the text does not depend on the image or all
    prompts together have at most `MAX_EXACT_TOKENS` tokens."""
    preprocess: Literal["outside", "inside"] = "outside"
    """With `inside`, the graph takes 8-bit images and normalises them itself."""
    output: AnyPath | None = None
    """File to write. Default: `model.onnx` or `model.pt2` in the run's folder, or here for a run on the Hub."""
    images: AnyPath | None = None
    """Image, or folder of images, to compare the file with torch on. Default: test images of the run's data set."""


@dataclass(frozen=True)
class ExportedModel:
    """A file that was written.

    Attributes:
        size: of the file, in bytes.
        metadata: the JSON in the file, see docs/export.md.
        comparison: of the file with torch and the same head.
    """

    path: Path
    size: int
    metadata: dict[str, Any]
    comparison: Comparison


def export_run(
    run: str | Path,
    classnames: Sequence[str] | None = None,
    settings: ExportSettings | None = None,
    on_progress: Callable[[int], None] = lambda done: None,
    *,
    backbone: str | None = None,
) -> ExportedModel:
    """Write a run's classifier over fixed class names to a file that does not need GOPro.

    Args:
        run: folder of a trained run, or `ORG/NAME` of one on the Hugging Face Hub.
        classnames: any names; by default those of the training.
        on_progress: called after each batch with the number of images compared in it.
        backbone: where the weights of the run's backbone are, if not where the run says; see `gopro.load`.

    Raises:
        InputError: packages that are not installed; a file that exists already; no images to compare on; a head that
            is not available; or a file that does not agree with torch, which is then not written.

    Example:
        >>> from gopro.inference.export import ExportSettings, export_run
        >>> model = export_run("runs/activities", ["fan", "kite"], ExportSettings(format="torch"))
        >>> model.path.name, model.metadata["input"]
        ('model.pt2', 'float32 [batch, 3, 64, 64]')
    """
    settings = settings or ExportSettings()
    format = FORMATS[settings.format]
    format.check_packages()
    path = _output_path(run, settings)
    classifier = load(run, "cpu", backbone=backbone)
    trained = classifier.run
    assert trained is not None
    if classnames is not None:
        classifier = classifier.for_classes(classnames)
    source, images = comparison_images(trained, settings.images)
    method = choose_head(classifier, settings.head).eval()
    graph = Graph(method, uint8_input=settings.preprocess == "inside")
    model, metadata = format.convert(graph.trace()), describe(trained, method, graph.uint8_input)
    comparison = compare(method, graph, format.open(format.pack(model, "{}")), images, on_progress)
    agreement = comparison.agreement
    if not agreement.max <= TOLERANCE:  # in this form NaN is refused too
        raise InputError(
            f"no file was written: on {agreement.images} images {format.runtime} differs from torch by up to "
            f"{agreement.max:.2g} in a probability, more than {TOLERANCE:g}; try another --format or --head, and "
            f"please report it ({trained.config.method} on {method.backbone.name})"
        )
    metadata["check"] = {"of": source, **asdict(agreement)}
    content = format.pack(model, json.dumps(metadata, ensure_ascii=False))
    write_atomically(path, content)
    return ExportedModel(path, len(content), metadata, comparison)


def _output_path(run: str | Path, settings: ExportSettings) -> Path:
    """Return the file to write.

    Raises:
        InputError: it exists, or its folder does not.
    """
    if settings.output is None:
        folder = Path(run).expanduser()
        path = (folder if folder.is_dir() else Path()) / f"model{FORMATS[settings.format].suffix}"
    else:
        path = settings.output.expanduser()
        if not path.absolute().parent.is_dir():
            raise InputError(f"{path}: there is no folder {path.parent}; create it first")
    if path.exists():
        raise InputError(f"{path} exists already: remove it, or give another --output")
    return path


def choose_head(classifier: Classifier, head: ExportHead) -> Method:
    """Return the method with the head to export; if the text does not depend on the image there is only one."""
    method = classifier.method
    if isinstance(method, TaylorHead):
        return method
    if not method.text_depends_on_image:
        return constant_head(method, method.classnames)
    tokens = prompt_tokens(method)
    if head == "exact" or (head == "auto" and tokens is not None and tokens <= MAX_EXACT_TOKENS):
        return method
    return classifier.first_order().method


def describe(run: Run, method: Method, uint8_input: bool) -> dict[str, Any]:
    """Return the metadata of a file, as docs/export.md explains it."""
    backbone = method.backbone
    preprocess, size = backbone.preprocess, backbone.preprocess.size
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
        "temperature": method.temperature,
        "input": f"uint8 [batch, {size}, {size}, 3]" if uint8_input else f"float32 [batch, 3, {size}, {size}]",
        "preprocess": {
            "size": size,
            "resize_mode": preprocess.resize_mode,
            "interpolation": "bilinear" if preprocess.interpolation == "bilinear" else "bicubic",
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "inside": ["scale", "normalise"] if uint8_input else [],
        },
    }
