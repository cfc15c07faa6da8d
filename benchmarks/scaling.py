"""Measure cost by number of classes and by batch size, and compare the slopes with those that operations predict.

    python -m benchmarks.scaling [--json] [--plot FILE] [--image-classes N ...] [--step-classes N ...]

ViT-B/16 with random weights, `gopro-release`. There are three series: classifying one image, by classes; a training
step of batch 4 and three views, by classes; a training step of 50 classes, by batch size. A least-squares line is
fitted to each. Its predicted slope is the operations of one more class or image (see flops.py) divided by the machine's
measured rate of matrix products (the best of roofline.py), a time that no program with these operations can beat.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from benchmarks import flops, roofline
from benchmarks.common import (
    Stopwatch,
    about,
    class_names,
    make_backbone,
    make_method,
    make_parser,
    make_views,
    print_report,
)
from benchmarks.train_step import training_step
from gopro.clip.backbone import Backbone
from gopro.clip.text.packed_prompts import PackedPrompts

FEW = 100  # up to so many classes, a measurement is the median of three


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--plot", type=Path, metavar="FILE", help="plot the series to a .png or .svg file")
    several: dict[str, Any] = {"type": int, "nargs": "+", "metavar": "N"}
    parser.add_argument("--image-classes", default=[10, 100, 1000, 5000, 21000], **several)
    parser.add_argument("--step-classes", default=[10, 50, 100, 200, 500], **several)
    parser.add_argument("--batches", default=[2, 4, 8, 16], **several)
    options = parser.parse_args()
    report = measure(options.image_classes, options.step_classes, options.batches)
    if options.plot:
        draw(report, options.plot)
    print_report(report, table, options.json)


def measure(image_classes: Sequence[int], step_classes: Sequence[int], batches: Sequence[int]) -> dict[str, Any]:
    """Measure the three series, each with its line and its predicted slope."""
    rate = max(roofline.measure()["gflops"].values()) * 1e9
    backbone = make_backbone()
    series = [
        _series("classify one image", "classes", image_classes, rate, lambda n: _classify(backbone, n)),
        _series("step, batch 4", "classes", step_classes, rate, lambda n: _step(backbone, n, 4)),
        _series("step, 50 classes", "images", batches, rate, lambda n: _step(backbone, 50, n)),
    ]
    return {**about(), "gflops": rate / 1e9, "series": series}


def _series(
    name: str, unit: str, counts: Sequence[int], rate: float, run: Callable[[int], tuple[float, int]]
) -> dict[str, Any]:
    """Measure seconds and operations at each count, and fit lines to both."""
    seconds, operations = zip(*(run(count) for count in counts), strict=True)
    slope, intercept = np.polyfit(counts, seconds, 1)
    residual = np.array(seconds) - intercept - slope * np.array(counts)
    predicted = np.polyfit(counts, np.array(operations) / rate, 1)[0]
    return {
        "name": name,
        "unit": unit,
        "counts": list(counts),
        "seconds": list(seconds),
        "operations": list(operations),
        "intercept": float(intercept),
        "slope": float(slope),
        "predicted_slope": float(predicted),
        "r2": float(1 - residual.var() / np.var(seconds)),
    }


@torch.no_grad()
def _classify(backbone: Backbone, classes: int) -> tuple[float, int]:
    method = make_method(backbone, class_names(classes)).eval()
    image, prompts = make_views(1, 1, backbone.preprocess.size)[0], method.prompts
    assert isinstance(prompts, PackedPrompts)
    seconds = _median(lambda: method.logits(method.encode(image)), classes)
    return seconds, flops.image_tower(backbone, 1) + flops.text_forward(prompts, 1)


def _step(backbone: Backbone, classes: int, batch: int) -> tuple[float, int]:
    method = make_method(backbone, class_names(classes))
    views, labels = make_views(3, batch, backbone.preprocess.size), torch.arange(batch) % classes
    optimizer = torch.optim.SGD(method.parameters(), lr=2e-3, momentum=0.9, weight_decay=5e-4)
    seconds = _median(lambda: training_step(method, optimizer, views, labels), classes)
    prompts = method.prompts
    assert isinstance(prompts, PackedPrompts)
    return seconds, flops.step(backbone, prompts, batch, 3).total


def _median(function: Callable[[], Any], classes: int) -> float:
    clock = Stopwatch()
    for _ in range(3 if classes <= FEW else 1):
        clock.time(function)
    return clock.wall


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    lines = []
    for one in report["series"]:
        lines += [f"| {one['name']}: {one['unit']} | " + " | ".join(f"{count:,}" for count in one["counts"]) + " |"]
        lines += ["|" + "---|" * (1 + len(one["counts"]))]
        lines += ["| seconds | " + " | ".join(f"{s:.2f}" for s in one["seconds"]) + " |"]
        lines += ["| GFLOP | " + " | ".join(f"{o / 1e9:,.0f}" for o in one["operations"]) + " |"]
        rates = (o / s / 1e9 / report["gflops"] for o, s in zip(one["operations"], one["seconds"], strict=True))
        lines += ["| share of the roofline | " + " | ".join(f"{rate:.0%}" for rate in rates) + " |", ""]
    lines += ["| series | ms per class or image | predicted | share | R² of the line |", "|" + "---|" * 5]
    for one in report["series"]:
        slope, predicted = 1e3 * one["slope"], 1e3 * one["predicted_slope"]
        lines.append(f"| {one['name']} | {slope:.2f} | {predicted:.2f} | {predicted / slope:.0%} | {one['r2']:.4f} |")
    return "\n".join([*lines, "", f"The roofline is {report['gflops']:.0f} GFLOP/s."])


def draw(report: dict[str, Any], path: Path) -> None:
    """Plot measurements, their lines and the least time that operations allow, one panel per series."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(report["series"]), figsize=(11, 3.2), layout="constrained")
    for axis, one in zip(np.atleast_1d(axes), report["series"], strict=True):
        counts = np.array(one["counts"])
        least = np.array(one["operations"]) / report["gflops"] / 1e9
        axis.plot(counts, one["seconds"], "o", color="#20639b", label="measured")
        axis.plot(counts, one["intercept"] + one["slope"] * counts, "-", color="#20639b", label="line")
        axis.plot(counts, least, "--", color="#888888", label="operations at the roofline")
        axis.set(xlabel=one["unit"], ylabel="seconds", title=one["name"], xlim=0, ylim=0)
        axis.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
