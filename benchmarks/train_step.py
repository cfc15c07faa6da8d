"""Compare a training step of GOPro, with three views per image: ours, without packing, and the released code.

    python -m benchmarks.train_step [--json] [--reference PATH] [--classes 50 500] [--batch 4] [--parts 6 12 18]

ViT-B/16 with random weights, the release preset, SGD. All variants have the same weights, learned parameters, images
and class names, so their losses must be equal. A step is everything after the views are made: image tower, prompts,
losses, backward, update. Each measurement runs in a process of its own, whose peak memory includes the libraries (0.4
GiB) and weights (0.6 GiB). `ours` is measured before and after the others. `default` is the default preset, which has
other losses: it compares the views in the prompts of a few classes per step, not of all. `unpacked` is baseline.py.

`unpacked` and the released code keep about 40 MB per image, view and class until backward, so that 50 classes at batch
4 would need 26 GB. They run with `--parts` of the classes at full batch, and a line is fitted to seconds and to memory,
because all their work but the image tower's is done once per view, image and class. `fit error` is the largest relative
distance of a measurement from the line. `--reference` names a checkout of the released code (see released.py).
"""

from __future__ import annotations

import argparse
import gc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
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
from gopro.methods.gopro import GOPro
from gopro.methods.gopro_release import GOProRelease
from gopro.runs.environment import PeakMemory

KINDS = {
    "ours": GOProRelease,
    "default": GOPro,
    "unpacked": UnpackedGOPro,
    "released": GOProRelease,  # the source of its learned parameters
}


@dataclass(frozen=True)
class Measured:
    """Steps of one variant at one number of classes: median seconds, and the losses of the first step."""

    variant: str
    classes: int
    seconds: float
    cpu_seconds: float
    peak_gib: float
    runs: int
    losses: dict[str, float]


@dataclass(frozen=True)
class Line:
    """Lines of a variant's seconds and GiB over classes, each (intercept, slope), and the largest relative error."""

    variant: str
    seconds: tuple[float, float]
    cpu_seconds: tuple[float, float]
    peak_gib: tuple[float, float]
    error: float

    def at(self, classes: int) -> tuple[float, float, float]:
        """Return seconds, CPU seconds and GiB at so many classes."""
        lines = (self.seconds, self.cpu_seconds, self.peak_gib)
        wall, cpu, peak = (intercept + classes * slope for intercept, slope in lines)
        return wall, cpu, peak


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of the released code")
    parser.add_argument("--classes", type=int, nargs="+", default=[50, 500], metavar="C")
    parser.add_argument("--parts", type=int, nargs="+", default=[6, 12, 18], metavar="C", help="for the other variants")
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="images per step")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of ours; on a GPU, of all")
    parser.add_argument("--limit", type=float, default=14.0, metavar="GIB", help="memory of a process")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    if len(set(options.parts)) < 2:
        parser.error("--parts: give at least 2 numbers of classes to fit a line to")
    report = compare(options)
    print_report(report, table, options.json)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all variants, the slow ones between two rounds of ours."""

    def run(variant: str, classes: int, repeats: int) -> Measured:
        setting = (variant, classes, options.batch, repeats, options.device, options.reference)
        result = run_isolated(options.limit, measure, *setting)
        if result is None:
            raise SystemExit(f"{variant}, {classes} classes: more than {options.limit} GiB; give fewer --parts")
        return result

    variants = ["unpacked", *(["released"] if options.reference else [])]
    ours = [run("ours", classes, options.repeats) for classes in options.classes]
    # On a GPU the first step is slow because it loads kernels; on the CPU the slow variants take minutes per step.
    repeats = options.repeats if options.device == "cuda" else 1
    parts = [run(v, classes, repeats) for classes in options.parts for v in ("ours", *variants)]
    ours += [run(v, classes, options.repeats) for classes in options.classes for v in ("ours", "default")]
    return {
        **about(),
        "batch": options.batch,
        "device": options.device,
        "ours": [asdict(m) for m in ours],
        "parts": [asdict(m) for m in parts],
        "lines": [asdict(fit_line([m for m in parts if m.variant == v])) for v in variants],
    }


def measure(variant: str, classes: int, batch: int, repeats: int, device: str, reference: Path | None) -> Measured:
    """Time steps of one variant; call it in a process of its own."""
    state, names = openai_state(), class_names(classes)
    method: Any = make_method(from_openai(state, device=device), names, KINDS[variant])
    views = make_views(3, batch, method.backbone.preprocess.size).to(device)
    labels = torch.arange(batch, device=device) % classes
    if variant == "released":
        assert reference is not None
        released = Released(reference, state, method.state_dict(), names, device)
        del method

        def step() -> dict[str, float]:
            total = released.step(views, labels)
            return {"total": total}

    else:
        optimizer = torch.optim.SGD(method.parameters(), lr=2e-3, momentum=0.9, weight_decay=5e-4)

        def step() -> dict[str, float]:
            return training_step(method, optimizer, views, labels)

    del state
    gc.collect()
    memory, clock = PeakMemory(torch.device(device)), Stopwatch()
    losses = clock.time(step)
    if variant == "released":
        losses |= released.terms()
    for _ in range(repeats - 1):
        clock.time(step)
    assert memory.mib is not None
    return Measured(variant, classes, clock.wall, clock.cpu, memory.mib / 2**10, repeats, losses)


def training_step(method: Any, optimizer: torch.optim.Optimizer, views: Any, labels: Any) -> dict[str, float]:
    """Take a step as `gopro.training.loop` does and return the losses before it."""
    with torch.autocast(views.device.type, torch.bfloat16, enabled=views.device.type == "cuda"):
        encoded = method.encode(views)
        terms = method.losses(encoded, labels)
    total = torch.stack(list(terms.values())).sum()
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return {"total": total.item(), **{name: term.item() for name, term in terms.items()}}


def fit_line(parts: Sequence[Measured]) -> Line:
    """Fit least-squares lines to the measurements of one variant."""
    classes = np.array([m.classes for m in parts], float)

    def fit(values: Sequence[float]) -> tuple[tuple[float, float], float]:
        slope, intercept = np.polyfit(classes, values, 1)
        error = np.abs(intercept + slope * classes - values) / values
        return (float(intercept), float(slope)), float(error.max())

    seconds, error = fit([m.seconds for m in parts])
    cpu, _ = fit([m.cpu_seconds for m in parts])
    peak, peak_error = fit([m.peak_gib for m in parts])
    return Line(parts[0].variant, seconds, cpu, peak, max(error, peak_error))


def largest_difference(parts: Sequence[Measured]) -> float:
    """Return the largest difference of a loss between variants at the same classes, relative to the total loss."""
    worst = 0.0
    for m in parts:
        reference = next(o for o in parts if o.variant == "ours" and o.classes == m.classes)
        for name, value in m.losses.items():
            worst = max(worst, abs(value - reference.losses[name]) / abs(reference.losses["total"]))
    return worst


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    ours = [Measured(**m) for m in report["ours"]]
    parts = [Measured(**m) for m in report["parts"]]
    lines = ["| classes | variant | s per step | CPU s | peak GiB | times ours | CPU | |", "|" + "---|" * 8]

    def row(
        classes: int, variant: str, wall: float, cpu: float, peak: float, reference: tuple[float, float], note: str
    ):
        ratios = f"{wall / reference[0]:.1f} | {cpu / reference[1]:.1f}"
        lines.append(f"| {classes} | {variant} | {wall:.2f} | {cpu:.2f} | {peak:.1f} | {ratios} | {note} |")

    for m in parts:
        ours_here = next(o for o in parts if o.variant == "ours" and o.classes == m.classes)
        row(
            m.classes,
            m.variant,
            m.seconds,
            m.cpu_seconds,
            m.peak_gib,
            (ours_here.seconds, ours_here.cpu_seconds),
            "measured",
        )
    for classes in dict.fromkeys(m.classes for m in ours):
        rounds = [m for m in ours if m.classes == classes and m.variant == "ours"]
        wall, cpu = (float(np.mean([getattr(m, f) for m in rounds])) for f in ("seconds", "cpu_seconds"))
        note = "measured, " + " and ".join(f"{m.seconds:.2f}" for m in rounds) + " s"
        row(classes, "ours", wall, cpu, max(m.peak_gib for m in rounds), (wall, cpu), note)
        for m in ours:
            if m.classes == classes and m.variant == "default":
                row(classes, m.variant, m.seconds, m.cpu_seconds, m.peak_gib, (wall, cpu), "measured")
        for fitted in (Line(**fields) for fields in report["lines"]):
            row(classes, fitted.variant, *fitted.at(classes), (wall, cpu), f"by the line, fit error {fitted.error:.1%}")
    difference = largest_difference(parts)
    return "\n".join([*lines, "", f"Batch {report['batch']}. Losses differ by at most {difference:.1e} of the total."])


if __name__ == "__main__":
    main()
