"""Compare the classification of an image by trained GOPro: ours, without packing, and the released code.

    python -m benchmarks.evaluate [--json] [--reference PATH] [--classes 100 1000] [--images 8]

ViT-B/16 with random weights, the release preset. All variants have the same weights, learned parameters, images and
class names, so their logits must be equal. Seconds are per image, image tower included. `ours` takes `--images` at
once; the others process images one by one anyway, and take one. The released code and `unpacked` (baseline.py) encode
all three views at test time, which are passed to them, so that making views is not timed. Each measurement runs in a
process of its own, whose peak memory includes the libraries (0.4 GiB) and weights (0.6 GiB). `ours` is measured before
and after the others; `unpacked` runs at the first of `--classes` only. `first-order` is the approximate head, which
encodes no text, here expanded over 8 other images along 7 directions; building it is not timed. Its accuracy depends on
what was learned, so random weights say nothing about it: see taylor_head.py.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.baseline import UnpackedGOPro
from benchmarks.common import (
    Stopwatch,
    about,
    class_names,
    make_method,
    make_parser,
    make_views,
    openai_state,
    print_report,
)
from benchmarks.isolated import run_isolated
from benchmarks.released import Released
from gopro.clip.backbone import from_openai
from gopro.inference.taylor_head import TaylorHead, expand_classes
from gopro.methods.gopro_release import GOProRelease
from gopro.runs.environment import PeakMemory


@dataclass(frozen=True)
class Measured:
    """One variant at one number of classes; seconds are the median per image."""

    variant: str
    classes: int
    seconds: float
    cpu_seconds: float
    peak_gib: float
    runs: int
    logits: list[float]
    """Those of the first image."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of the released code")
    parser.add_argument("--classes", type=int, nargs="+", default=[100, 1000], metavar="C")
    parser.add_argument("--images", type=int, default=8, metavar="N", help="images that ours takes at once")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of ours; on a GPU, of all")
    parser.add_argument("--limit", type=float, default=12.0, metavar="GIB", help="memory of a process")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    report = compare(options)
    print_report(report, table, options.json)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all variants, the slow ones between two rounds of ours."""

    def run(variant: str, classes: int) -> Measured:
        ours = variant in ("ours", "first-order")
        images = options.images if ours else 1
        repeats = options.repeats if ours or options.device == "cuda" else 1
        setting = (variant, classes, images, repeats, options.device, options.reference)
        result = run_isolated(options.limit, measure, *setting)
        if result is None:
            raise SystemExit(f"{variant}, {classes} classes: more than {options.limit} GiB; raise --limit")
        return result

    measured = []
    for i, classes in enumerate(options.classes):
        slow = [*(["unpacked"] if i == 0 else []), *(["released"] if options.reference else [])]
        measured += [run(variant, classes) for variant in ("ours", "first-order", *slow, "ours")]
    return {
        **about(),
        "images": options.images,
        "device": options.device,
        "results": [asdict(m) for m in measured],
    }


@torch.no_grad()
def measure(variant: str, classes: int, images: int, repeats: int, device: str, reference: Path | None) -> Measured:
    """Time one variant; call it in a process of its own."""
    state, names = openai_state(), class_names(classes)
    method: Any = make_method(
        from_openai(state, device=device), names, UnpackedGOPro if variant == "unpacked" else GOProRelease
    ).eval()
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
                return method.logits(method.encode(views if variant == "unpacked" else views[0]))

    del state
    memory, clock = PeakMemory(torch.device(device)), Stopwatch()
    logits = clock.time(classify)
    for _ in range(repeats - 1):
        clock.time(classify)
    assert memory.mib is not None
    seconds = clock.wall / images, clock.cpu / images
    return Measured(variant, classes, *seconds, memory.mib / 2**10, repeats, logits[0].float().tolist())


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    measured = [Measured(**m) for m in report["results"]]
    head = "classes | variant | s per image | CPU s | peak GiB | times ours | CPU | logits differ by"
    lines = [f"| {head} |", "|" + "---|" * 8]
    for classes in dict.fromkeys(m.classes for m in measured):
        here = [m for m in measured if m.classes == classes]
        ours = [m for m in here if m.variant == "ours"]
        wall, cpu = (sum(getattr(m, field) for m in ours) / len(ours) for field in ("seconds", "cpu_seconds"))
        first = torch.tensor(ours[0].logits)
        for m in here:
            error = (torch.tensor(m.logits) - first).abs().max() / first.abs().max()
            difference = "–" if m.variant == "first-order" else f"{error:.1e}"
            lines.append(
                f"| {classes} | {m.variant} | {m.seconds:.3f} | {m.cpu_seconds:.3f} | {m.peak_gib:.1f} "
                f"| {m.seconds / wall:.2f} | {m.cpu_seconds / cpu:.2f} | {difference} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
