"""Classifying an image with trained GOPro: ours, its plain form, and the released code.

    python -m benchmarks.evaluate [--json] [--reference PATH] [--classes 100 1000] [--images 8]

ViT-B/16 with random weights, the release preset; every variant has the same weights, learned parameters, images and
class names, and the logits must be equal. Seconds are an image's, image tower included; ours goes through `--images`
at once, the others through one, which they do one by one anyway. The released code, and the plain form after it, make
all three views at test time; they are given to it here, which spares it making them. Each measurement has a process
of its own, and peak memory is that process's, the libraries (0.4 GiB) and weights (0.6 GiB) included; ours is measured
before and after the others. The plain form runs the first number of `--classes` alone. `first-order` is the head that
encodes no text any more, here expanded over 8 other images, along 7 directions; building it is not counted. How far
it can be trusted depends on what was learned, so that random weights say nothing of it: see first_order.py.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.apart import apart
from benchmarks.naive import Naive
from benchmarks.released import Released
from benchmarks.setting import Stopwatch, about, class_names, make_views, openai_state, start
from gopro.clip.backbone import from_openai
from gopro.inference.taylor_head import TaylorHead, expand_classes
from gopro.methods.gopro import GOProRelease
from gopro.runs.environment import PeakMemory


@dataclass(frozen=True)
class Measured:
    """One variant at one number of classes; seconds are an image's, the median of the runs."""

    variant: str
    classes: int
    seconds: float
    cpu_seconds: float
    peak_gib: float
    runs: int
    logits: list[float]
    """Of the first image."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of the released code")
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1000], metavar="C")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="that ours takes at once")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of ours; on a card of all")
    parser.add_argument("--limit", type=float, default=12.0, metavar="GIB", help="that a process may take")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    report = compare(options)
    if options.json:
        print(json.dumps(report))
    else:
        print(f"{report['machine']}, {report['threads']} threads, torch {report['torch']}")
        print(table(report))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, the slow variants between two rounds of ours."""

    def run(variant: str, classes: int) -> Measured:
        ours = variant in ("ours", "first-order")
        images = options.images if ours else 1
        repeats = options.repeats if ours or options.device == "cuda" else 1
        setting = (variant, classes, images, repeats, options.device, options.reference)
        result = apart(options.limit, measure, *setting)
        if result is None:
            raise SystemExit(f"{variant}, {classes} classes: more than {options.limit} GiB; raise --limit")
        return result

    measured = []
    for i, classes in enumerate(options.classes):
        slow = [*(["naive"] if i == 0 else []), *(["released"] if options.reference else [])]
        measured += [run(variant, classes) for variant in ("ours", "first-order", *slow, "ours")]
    return {
        **about(),
        "images": options.images,
        "device": options.device,
        "results": [asdict(m) for m in measured],
    }


@torch.no_grad()
def measure(variant: str, classes: int, images: int, repeats: int, device: str, reference: Path | None) -> Measured:
    """One variant, in a process of its own."""
    state, names = openai_state(), class_names(classes)
    method: Any = start(from_openai(state, device=device), names, Naive if variant == "naive" else GOProRelease).eval()
    size = method.backbone.preprocess.size
    views = make_views(3, images + 8, size).to(device)
    if variant == "first-order":
        contexts = method.image_contexts(method.encode(views[0, images:]))
        method = TaylorHead(method, names, expand_classes(method, names, contexts), None)
    views = views[:, :images]
    if variant == "released":
        assert reference is not None
        released = Released(reference, state, method.state_dict(), names, device)
        labels = torch.zeros(images, dtype=torch.long)
        del method

        def classify() -> Any:
            return released.logits(views, labels)

    else:

        def classify() -> Any:
            with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
                return method.logits(method.encode(views if variant == "naive" else views[0]))

    del state
    memory, clock = PeakMemory(torch.device(device)), Stopwatch()
    logits = clock.time(classify)
    for _ in range(repeats - 1):
        clock.time(classify)
    assert memory.mib is not None
    each = clock.wall / images, clock.cpu / images
    return Measured(variant, classes, *each, memory.mib / 2**10, repeats, logits[0].float().tolist())


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    measured = [Measured(**m) for m in report["results"]]
    head = "classes | variant | s an image | CPU s | peak GiB | times ours | CPU | logits differ by"
    lines = [f"| {head} |", "|" + "---|" * 8]
    for classes in dict.fromkeys(m.classes for m in measured):
        here = [m for m in measured if m.classes == classes]
        ours = [m for m in here if m.variant == "ours"]
        wall, cpu = (sum(getattr(m, field) for m in ours) / len(ours) for field in ("seconds", "cpu_seconds"))
        first = torch.tensor(ours[0].logits)
        for m in here:
            off = (torch.tensor(m.logits) - first).abs().max() / first.abs().max()
            differ = "–" if m.variant == "first-order" else f"{off:.1e}"
            lines.append(
                f"| {classes} | {m.variant} | {m.seconds:.3f} | {m.cpu_seconds:.3f} | {m.peak_gib:.1f} "
                f"| {m.seconds / wall:.2f} | {m.cpu_seconds / cpu:.2f} | {differ} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
