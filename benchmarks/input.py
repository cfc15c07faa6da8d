"""Whether a training step waits for its images: views a second against what the image tower takes.

    python -m benchmarks.input [--json] [--sizes 64 224] [--architectures ViT-B-32 ViT-B-16] [--workers 0 1 2]

Images of 500 × 375 noise, in memory as a few-shot set's are. The first table is of the views alone. The second is of
the least step that there is, the image tower on every view of a batch, at 224 pixels: by itself on one batch, then fed
by the loader as training is; `waits` is the share of its time that it spends on the next batch (with no workers: on
making it). Workers share the cores with the tower, so a loader that is fast by itself may still slow the step down.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.setting import Stopwatch, about, make_backbone
from gopro.data.dataset import Sample
from gopro.data.decoded_image import DecodedImage, load_into_memory
from gopro.data.loader import ImageLoader, ViewSettings, train_batches
from gopro.data.transforms import Preprocess, ViewName

VIEWS: tuple[ViewName, ...] = ("base", "moco", "augmix")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 224], metavar="PX")
    parser.add_argument("--architectures", nargs="+", default=["ViT-B-32", "ViT-B-16"], metavar="NAME")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], metavar="N")
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="images a step")
    parser.add_argument("--seconds", type=float, default=4.0, metavar="S", help="of each measurement, at least")
    options = parser.parse_args()
    report = measure(options)
    if options.json:
        print(json.dumps(report))
    else:
        print(f"{report['machine']}, {report['threads']} threads, torch {report['torch']}")
        print(table(report))


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Both tables' figures."""
    alone = []
    for size in options.sizes:
        for views in (*((view,) for view in VIEWS), VIEWS):
            for workers in options.workers:
                rate = views_a_second(size, views, workers, options.batch, options.seconds)
                alone.append({"size": size, "views": "+".join(views), "workers": workers, "views_a_second": rate})
    steps = []
    for architecture in options.architectures:
        steps += fed(architecture, options.workers, options.batch, options.seconds)
    return {**about(), "batch": options.batch, "views": alone, "steps": steps}


@dataclass(frozen=True)
class Endless:
    """A loader's batches, epoch after epoch."""

    loader: ImageLoader

    def __iter__(self):
        epoch = 0
        while True:
            self.loader.set_epoch(epoch)
            yield from self.loader
            epoch += 1


def loader(preprocess: Preprocess, views: Sequence[ViewName], workers: int, batch: int) -> ImageLoader:
    """Of 64 images, the way `gopro.training.loop` makes it."""
    draw = np.random.default_rng(0)
    images = [Image.fromarray(draw.integers(0, 256, (375, 500, 3), dtype=np.uint8)) for _ in range(64)]
    samples = [Sample(DecodedImage(f"noise {i}", image), 0) for i, image in enumerate(images)]
    settings = ViewSettings(preprocess, workers=workers)
    return train_batches(load_into_memory(samples, preprocess), views, settings, batch, seed=1)


def views_a_second(size: int, views: Sequence[ViewName], workers: int, batch: int, seconds: float) -> float:
    """Of the loader alone, once its workers run."""
    preprocess = Preprocess(size=size, mean=(0.5,) * 3, std=(0.25,) * 3)
    batches = iter(Endless(loader(preprocess, views, workers, batch)))
    for _ in range(1 + 2 * workers):  # what was made ahead of the clock
        next(batches)
    made, started = 0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        made += next(batches).views.shape[:2].numel()
    return made / (time.perf_counter() - started)


def fed(architecture: str, workers: Sequence[int], batch: int, seconds: float) -> list[dict[str, Any]]:
    """Steps of an image tower by itself, and fed by loaders of so many workers each."""
    backbone = make_backbone(architecture)
    feeds = {n: iter(Endless(loader(backbone.preprocess, VIEWS, n, batch))) for n in workers}
    given = next(feeds[workers[0]]).views
    backbone.encode(given)
    alone = Stopwatch()
    while sum(alone.walls) < seconds:
        alone.time(backbone.encode, given)
    rows = []
    for count, batches in feeds.items():
        for _ in range(1 + 2 * count):
            backbone.encode(next(batches).views)
        waiting, computing = Stopwatch(), Stopwatch()
        while sum(waiting.walls) + sum(computing.walls) < seconds:
            views = waiting.time(next, batches).views
            computing.time(backbone.encode, views)
        whole = sum(waiting.walls) + sum(computing.walls)
        rows.append(
            {
                "architecture": architecture,
                "workers": count,
                "images_a_second": given.shape[:2].numel() / alone.wall,
                "alone_seconds": alone.wall,
                "fed_seconds": whole / len(waiting.walls),
                "waits": sum(waiting.walls) / whole,
            }
        )
        del batches
    return rows


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    workers = list(dict.fromkeys(row["workers"] for row in report["views"]))
    rates = {(row["size"], row["views"], row["workers"]): row["views_a_second"] for row in report["views"]}
    lines = ["| size | views | " + " | ".join(f"views/s, {n} workers" for n in workers) + " |"]
    lines.append("|" + "---|" * (2 + len(workers)))
    for size, views in dict.fromkeys((size, views) for size, views, _ in rates):
        lines.append(f"| {size} | {views} | " + " | ".join(f"{rates[size, views, n]:.0f}" for n in workers) + " |")
    head = "image tower | takes images/s | workers | step alone, s | step fed, s | slower by | waits"
    lines += ["", f"| {head} |", "|" + "---|" * 7]
    for row in report["steps"]:
        slower = row["fed_seconds"] / row["alone_seconds"] - 1
        lines.append(
            f"| {row['architecture']} | {row['images_a_second']:.1f} | {row['workers']} | {row['alone_seconds']:.3f} "
            f"| {row['fed_seconds']:.3f} | {slower:.0%} | {row['waits']:.1%} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
