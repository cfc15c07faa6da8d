"""Measure whether a training step waits for its images: views made per second, and views the image tower takes.

    python -m benchmarks.input [--json] [--sizes 64 224] [--architectures ViT-B-32 ViT-B-16] [--workers 0 1 2]

Images are 500 × 375 noise, in memory like those of a few-shot set. The first table times the loader alone. The second
times the smallest possible step, the image tower on every view of a batch at 224 pixels: first repeatedly on one batch,
then fed by the loader as in training. `waits` is the share of its time spent on getting the next batch (without
workers, on making it). Workers share the cores with the tower, so a loader that is fast by itself may still slow the
step down.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.common import Stopwatch, about, make_backbone, make_parser, print_report
from gopro.data.dataset import Sample
from gopro.data.images.decoded_image import DecodedImage, load_into_memory
from gopro.data.images.loader import EpochBatches, ImageLoader, ViewSettings, train_batches
from gopro.data.images.transforms import Preprocess, ViewName

VIEWS: tuple[ViewName, ...] = ("base", "moco", "augmix")


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224], metavar="PX")
    parser.add_argument("--architectures", nargs="+", default=["ViT-B-32", "ViT-B-16"], metavar="NAME")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="images per step")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="least time of a measurement")
    options = parser.parse_args()
    report = measure(options)
    print_report(report, table, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure both tables."""
    alone = []
    for size in options.sizes:
        for views in (*((view,) for view in VIEWS), VIEWS):
            for workers in options.workers:
                rate = views_per_second(size, views, workers, options.batch, options.seconds)
                alone.append({"size": size, "views": "+".join(views), "workers": workers, "views_per_second": rate})
    steps = []
    for architecture in options.architectures:
        steps += time_steps(architecture, options.workers, options.batch, options.seconds)
    return {**about(), "batch": options.batch, "views": alone, "steps": steps}


@dataclass(frozen=True)
class Repeated:
    """The batches of a loader, epoch after epoch."""

    loader: ImageLoader

    def __iter__(self):
        epoch = 0
        while True:
            self.loader.set_epoch(epoch)
            yield from self.loader
            epoch += 1


def loader(preprocess: Preprocess, views: Sequence[ViewName], workers: int, batch: int) -> ImageLoader:
    """Make a loader of 64 images as training does."""
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (375, 500, 3), dtype=np.uint8)) for _ in range(64)]
    samples = [Sample(DecodedImage(f"noise {i}", image), 0) for i, image in enumerate(images)]
    settings = ViewSettings(preprocess, workers=workers)
    batches = EpochBatches(len(samples), batch, seed=1)
    return train_batches(load_into_memory(samples, preprocess), views, settings, batches)


def views_per_second(size: int, views: Sequence[ViewName], workers: int, batch: int, seconds: float) -> float:
    """Time the loader alone, once its workers run."""
    preprocess = Preprocess(size=size, mean=(0.5,) * 3, std=(0.25,) * 3)
    batches = iter(Repeated(loader(preprocess, views, workers, batch)))
    for _ in range(1 + 2 * workers):  # batches made before the clock starts
        next(batches)
    made, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        made += next(batches).views.shape[:2].numel()
    return made / (time.perf_counter() - started)


def time_steps(architecture: str, workers: Sequence[int], batch: int, seconds: float) -> list[dict[str, Any]]:
    """Time steps of an image tower on one batch, and fed by loaders with each number of workers."""
    backbone = make_backbone(architecture)
    feeds = {n: iter(Repeated(loader(backbone.preprocess, VIEWS, n, batch))) for n in workers}
    views = next(feeds[workers[0]]).views
    backbone.encode(views)
    alone = Stopwatch()
    while sum(alone.walls) < seconds:
        alone.time(backbone.encode, views)
    rows = []
    for count, batches in feeds.items():
        for _ in range(1 + 2 * count):
            backbone.encode(next(batches).views)
        waiting, computing = Stopwatch(), Stopwatch()
        while sum(waiting.walls) + sum(computing.walls) < seconds:
            computing.time(backbone.encode, waiting.time(next, batches).views)
        whole = sum(waiting.walls) + sum(computing.walls)
        rows.append(
            {
                "architecture": architecture,
                "workers": count,
                "images_per_second": views.shape[:2].numel() / alone.wall,
                "alone_seconds": alone.wall,
                "fed_seconds": whole / len(waiting.walls),
                "waits": sum(waiting.walls) / whole,
            }
        )
        del batches
    return rows


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    workers = list(dict.fromkeys(row["workers"] for row in report["views"]))
    rates = {(row["size"], row["views"], row["workers"]): row["views_per_second"] for row in report["views"]}
    lines = ["| size | views | " + " | ".join(f"views/s, {n} workers" for n in workers) + " |"]
    lines.append("|" + "---|" * (2 + len(workers)))
    for size, views in dict.fromkeys((size, views) for size, views, _ in rates):
        lines.append(f"| {size} | {views} | " + " | ".join(f"{rates[size, views, n]:.0f}" for n in workers) + " |")
    head = "image tower | takes images/s | workers | step alone, s | step fed, s | slower by | waits"
    lines += ["", f"| {head} |", "|" + "---|" * 7]
    for row in report["steps"]:
        slower = row["fed_seconds"] / row["alone_seconds"] - 1
        lines.append(
            f"| {row['architecture']} | {row['images_per_second']:.1f} | {row['workers']} | {row['alone_seconds']:.3f} "
            f"| {row['fed_seconds']:.3f} | {slower:.0%} | {row['waits']:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
