"""Cost against the number of classes and against the batch, and the slopes that counting operations predicts.

    python -m benchmarks.scaling [--json] [--plot FILE] [--image-classes N ...] [--step-classes N ...]

ViT-B/16 with random weights, `gopro-release`. Three series: classifying one image, and a training step of batch 4
and three views, against classes; a training step of 50 classes against the batch. Through each goes a least-squares
line. Its predicted slope is the operations that one more class or image takes (see flops.py) over the machine's
measured rate of matrix products (the best of roof.py's): the time that no program of these operations can beat.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch

from benchmarks import flops, roof
from benchmarks.setting import Stopwatch, about, class_names, make_backbone, make_views, start
from benchmarks.train_step import training_step
from gopro.clip.backbone import Backbone
from gopro.clip.packed_prompts import PackedPrompts

FEW = 100  # up to so many classes a measurement is made three times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw it, as .png or .svg")
    several: dict[str, Any] = {"type": int, "nargs": "+", "metavar": "N"}
    parser.add_argument("--image-classes", default=[10, 100, 1000, 5000, 21000], **several)
    parser.add_argument("--step-classes", default=[10, 50, 100, 200, 500], **several)
    parser.add_argument("--batches", default=[2, 4, 8, 16], **several)
    options = parser.parse_args()
    report = measure(options.image_classes, options.step_classes, options.batches)
    if options.plot:
        draw(report, options.plot)
    if options.json:
        print(json.dumps(report))
    else:
        print(f"{report['machine']}, {report['threads']} threads, torch {report['torch']}")
        print(table(report))


def measure(image_classes: Sequence[int], step_classes: Sequence[int], batches: Sequence[int]) -> dict[str, Any]:
    """The three series, each with its line and the predicted slope."""
    rate = max(roof.measure()["gflops"].values()) * 1e9
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
    """Seconds and operations at each count, and the lines through both."""
    seconds, operations = zip(*(run(count) for count in counts), strict=True)
    slope, at_none = np.polyfit(counts, seconds, 1)
    residual = np.array(seconds) - at_none - slope * np.array(counts)
    predicted = np.polyfit(counts, np.array(operations) / rate, 1)[0]
    return {
        "name": name,
        "unit": unit,
        "counts": list(counts),
        "seconds": list(seconds),
        "operations": list(operations),
        "at_none": float(at_none),
        "slope": float(slope),
        "predicted_slope": float(predicted),
        "r2": float(1 - residual.var() / np.var(seconds)),
    }


@torch.no_grad()
def _classify(backbone: Backbone, classes: int) -> tuple[float, int]:
    method = start(backbone, class_names(classes)).eval()
    image, prompts = make_views(1, 1, backbone.preprocess.size)[0], method.prompts
    assert isinstance(prompts, PackedPrompts)
    seconds = _median(lambda: method.logits(method.encode(image)), classes)
    return seconds, flops.image_tower(backbone, 1) + flops.text_forward(prompts, 1)


def _step(backbone: Backbone, classes: int, batch: int) -> tuple[float, int]:
    method = start(backbone, class_names(classes))
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
    """The report in Markdown."""
    lines = []
    for one in report["series"]:
        lines += [f"| {one['name']}: {one['unit']} | " + " | ".join(f"{count:,}" for count in one["counts"]) + " |"]
        lines += ["|" + "---|" * (1 + len(one["counts"]))]
        lines += ["| seconds | " + " | ".join(f"{s:.2f}" for s in one["seconds"]) + " |"]
        lines += ["| GFLOP | " + " | ".join(f"{o / 1e9:,.0f}" for o in one["operations"]) + " |"]
        rates = (o / s / 1e9 / report["gflops"] for o, s in zip(one["operations"], one["seconds"], strict=True))
        lines += ["| share of the roof | " + " | ".join(f"{rate:.0%}" for rate in rates) + " |", ""]
    lines += ["| series | ms for one more | predicted | share | R² of the line |", "|" + "---|" * 5]
    for one in report["series"]:
        slope, predicted = 1e3 * one["slope"], 1e3 * one["predicted_slope"]
        lines.append(f"| {one['name']} | {slope:.2f} | {predicted:.2f} | {predicted / slope:.0%} | {one['r2']:.4f} |")
    return "\n".join([*lines, "", f"The roof: {report['gflops']:.0f} GFLOP/s."])


def draw(report: dict[str, Any], path: Path) -> None:
    """Points, their lines, and the least time by the operations, one panel a series."""
    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(report["series"]), figsize=(11, 3.2), layout="constrained")
    for axis, one in zip(np.atleast_1d(axes), report["series"], strict=True):
        counts = np.array(one["counts"])
        least = np.array(one["operations"]) / report["gflops"] / 1e9
        axis.plot(counts, one["seconds"], "o", color="#20639b", label="measured")
        axis.plot(counts, one["at_none"] + one["slope"] * counts, "-", color="#20639b", label="line")
        axis.plot(counts, least, "--", color="#888888", label="operations at the roof")
        axis.set(xlabel=one["unit"], ylabel="seconds", title=one["name"], xlim=0, ylim=0)
        axis.spines[["top", "right"]].set_visible(False)
    np.atleast_1d(axes)[0].legend(frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
