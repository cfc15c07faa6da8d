"""Compare `gopro predict` with its image tower alone.

    python -m benchmarks.predict [--json] [--data FOLDER] [--images 1000] [--backbone photo] [--classes 10]

Predicting is `Classifier.stream`, which reads, decodes and resizes image files in threads, with an untrained `gopro`,
whose logits cost as much as those of a trained one. Alone, the image tower encodes the same images in the same batches,
prepared in advance. The two alternate batch group by batch group, so that other work on the machine slows both alike.
Seconds are of the clock, CPU seconds of all threads; starting the program is not timed. `rate` is the tower's time as a
share of that of predicting.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.common import Stopwatch, about, class_names, make_method, make_parser, print_report
from gopro.clip.backbone import load_backbone
from gopro.data.dataset import ImageSource
from gopro.data.images.image_file import ImageFile
from gopro.data.images.transforms import make_view
from gopro.data.load_dataset import load_dataset
from gopro.inference.classifier import Classifier
from gopro.methods.gopro import GOPro

GROUP = 4
"""Batches between two changes, so that starting the threads that decode counts for little."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", default="photos", help="folder of images, or data set (default: %(default)s)")
    parser.add_argument("--images", type=int, default=1000, metavar="N", help="at most")
    parser.add_argument("--backbone", default="photo", metavar="NAME", help="as gopro train takes it")
    parser.add_argument("--classes", type=int, default=10, metavar="C")
    parser.add_argument("--batch", type=int, default=64, metavar="B")
    options = parser.parse_args()
    print_report(measure(options), table, options.json)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure both ways over the images."""
    images = find(options.data)[: options.images]
    backbone = load_backbone(options.backbone)
    classifier = Classifier(make_method(backbone, class_names(options.classes), GOPro))
    view = make_view("eval", backbone.preprocess)
    predicting, tower = Stopwatch(), Stopwatch()
    for first in range(0, len(images), GROUP * options.batch):
        group = images[first : first + GROUP * options.batch]
        batches = torch.stack([view(image.open()) for image in group]).split(options.batch)
        if not first:  # the first calls prepare the class names and the kernels
            list(classifier.stream([group[0].open()]))
        tower.time(list, map(backbone.encode, batches))
        predicting.time(list, classifier.stream([image.path for image in group], batch=options.batch))
    clocks = {
        way: {"seconds": sum(watch.walls) / len(images), "cpu_seconds": sum(watch.cpus) / len(images)}
        for way, watch in (("image tower", tower), ("gopro predict", predicting))
    }
    return {**about(), "data": options.data, "images": len(images), "backbone": options.backbone, "ways": clocks}


def find(data: str) -> Sequence[ImageFile]:
    """Return the image files of a folder of class folders or of a data set."""
    dataset = load_dataset(data)
    return [_file(sample.image) for sample in (*dataset.train, *dataset.val, *dataset.test)]


def _file(image: ImageSource) -> ImageFile:
    if not isinstance(image, ImageFile):
        raise SystemExit(f"{image.name}: not a file; give --data FOLDER, or a data set of image files such as photos")
    return image


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    ways = report["ways"]
    lines = [
        f"{report['images']:,} images of {Path(report['data']).name}, backbone {report['backbone']}.",
        "",
        "| | ms per image | CPU ms per image | rate | rate by CPU |",
        "|---|--:|--:|--:|--:|",
    ]
    for way, clock in ways.items():
        rates = [ways["image tower"][name] / clock[name] for name in ("seconds", "cpu_seconds")]
        lines.append(
            f"| {way} | {1e3 * clock['seconds']:.1f} | {1e3 * clock['cpu_seconds']:.1f} | "
            + " | ".join(f"{rate:.1%}" for rate in rates)
            + " |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
