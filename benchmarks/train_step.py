"""A training step of GOPro, three views an image: ours, its plain form, and the released code.

    python -m benchmarks.train_step [--json] [--reference PATH] [--classes 50 500] [--batch 4] [--parts 6 12 18]

ViT-B/16 with random weights, the release preset, SGD; every variant has the same weights, learned parameters, images
and class names, so that the losses must be equal. A step is all that follows once the views are there: image tower,
prompts, losses, backward, update. Each measurement has a process of its own, and peak memory is that process's, the
libraries (0.4 GiB) and weights (0.6 GiB) included; ours is measured before and after the others. `default` is the
default preset, whose losses are others: it compares the views in the prompts of a few classes at a step, not of all.

The plain form and the released code keep some 40 MB an image, view and class until backward, and so cannot run 50
classes at batch 4 in less than 26 GB. They run `--parts` of the classes at full batch, and a line is laid through
seconds and through memory: but for the image tower all that they do is done once a (view, image, class). `off` is how
far the measured parts lie from the line at most. `--reference` names a checkout of the released code (see released.py).
"""

from __future__ import annotations

import argparse
import gc
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.apart import apart
from benchmarks.naive import Naive
from benchmarks.released import Released
from benchmarks.setting import Stopwatch, about, class_names, make_views, openai_state, start
from gopro.clip.backbone import from_openai
from gopro.methods.gopro import RELEASE, GOPro, GOProConfig, GOProRelease
from gopro.runs.environment import PeakMemory

KINDS = {
    "ours": (GOProRelease, RELEASE),
    "default": (GOPro, GOProConfig()),
    "naive": (Naive, RELEASE),
    "released": (GOProRelease, RELEASE),  # where its learned parameters come from
}


@dataclass(frozen=True)
class Measured:
    """Steps of one variant at one number of classes: seconds are the median's, losses the first step's."""

    variant: str
    classes: int
    seconds: float
    cpu_seconds: float
    peak_gib: float
    runs: int
    losses: dict[str, float]


@dataclass(frozen=True)
class Line:
    """Seconds and GiB of a variant against classes: `[at none, a class]`; and how far the parts lie from it."""

    variant: str
    seconds: tuple[float, float]
    cpu_seconds: tuple[float, float]
    peak_gib: tuple[float, float]
    off: float

    def at(self, classes: int) -> tuple[float, float, float]:
        """Seconds, CPU seconds and GiB at so many classes."""
        lines = (self.seconds, self.cpu_seconds, self.peak_gib)
        first, second, third = (start + classes * slope for start, slope in lines)
        return first, second, third


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of the released code")
    parser.add_argument("--classes", type=int, nargs="+", default=[50, 500], metavar="C")
    parser.add_argument("--parts", type=int, nargs="+", default=[6, 12, 18], metavar="C", help="that the others run")
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="images a step")
    parser.add_argument("--repeats", type=int, default=3, metavar="N", help="of ours; on a card of all")
    parser.add_argument("--limit", type=float, default=14.0, metavar="GIB", help="that a process may take")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    options = parser.parse_args()
    if len(set(options.parts)) < 2:
        parser.error("--parts: give at least 2 numbers of classes to lay a line through")
    report = compare(options)
    if options.json:
        print(json.dumps(report))
    else:
        print(f"{report['machine']}, {report['threads']} threads, torch {report['torch']}")
        print(table(report))


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """All measurements, the slow variants between two rounds of ours."""

    def run(variant: str, classes: int, repeats: int) -> Measured:
        setting = (variant, classes, options.batch, repeats, options.device, options.reference)
        result = apart(options.limit, measure, *setting)
        if result is None:
            raise SystemExit(f"{variant}, {classes} classes: more than {options.limit} GiB; give fewer --parts")
        return result

    variants = ["naive", *(["released"] if options.reference else [])]
    ours = [run("ours", classes, options.repeats) for classes in options.classes]
    # On a card the first step is slow, for all that is loaded by it; on the CPU the slow ones take minutes.
    repeats = options.repeats if options.device == "cuda" else 1
    parts = [run(v, classes, repeats) for classes in options.parts for v in ("ours", *variants)]
    ours += [run(v, classes, options.repeats) for classes in options.classes for v in ("ours", "default")]
    return {
        **about(),
        "batch": options.batch,
        "device": options.device,
        "ours": [asdict(m) for m in ours],
        "parts": [asdict(m) for m in parts],
        "lines": [asdict(line([m for m in parts if m.variant == v])) for v in variants],
    }


def measure(variant: str, classes: int, batch: int, repeats: int, device: str, reference: Path | None) -> Measured:
    """Steps of one variant, in a process of its own."""
    state, names = openai_state(), class_names(classes)
    method: Any = start(from_openai(state, device=device), names, *KINDS[variant])
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
    """One step as `gopro.training.loop` takes it. Returns the losses before it."""
    with torch.autocast(views.device.type, torch.bfloat16, enabled=views.device.type == "cuda"):
        encoded = method.encode(views)
        terms = method.losses(encoded, labels)
    total = torch.stack(list(terms.values())).sum()
    optimizer.zero_grad()
    total.backward()
    optimizer.step()
    return {"total": total.item(), **{name: term.item() for name, term in terms.items()}}


def line(parts: Sequence[Measured]) -> Line:
    """The least-squares line through the parts of one variant."""
    classes = np.array([m.classes for m in parts], float)

    def fit(values: Sequence[float]) -> tuple[tuple[float, float], float]:
        slope, at_none = np.polyfit(classes, values, 1)
        off = np.abs(at_none + slope * classes - values) / values
        return (float(at_none), float(slope)), float(off.max())

    seconds, off = fit([m.seconds for m in parts])
    cpu, _ = fit([m.cpu_seconds for m in parts])
    peak, peak_off = fit([m.peak_gib for m in parts])
    return Line(parts[0].variant, seconds, cpu, peak, max(off, peak_off))


def differ(parts: Sequence[Measured]) -> float:
    """Largest relative difference of a loss between the variants at equal classes."""
    worst = 0.0
    for m in parts:
        reference = next(o for o in parts if o.variant == "ours" and o.classes == m.classes)
        for name, value in m.losses.items():
            worst = max(worst, abs(value - reference.losses[name]) / abs(reference.losses["total"]))
    return worst


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    ours = [Measured(**m) for m in report["ours"]]
    parts = [Measured(**m) for m in report["parts"]]
    lines = ["| classes | variant | s a step | CPU s | peak GiB | times ours | CPU | |", "|" + "---|" * 8]

    def row(classes: int, variant: str, wall: float, cpu: float, peak: float, best: tuple[float, float], how: str):
        ratios = f"{wall / best[0]:.1f} | {cpu / best[1]:.1f}"
        lines.append(f"| {classes} | {variant} | {wall:.2f} | {cpu:.2f} | {peak:.1f} | {ratios} | {how} |")

    for m in parts:
        best = next(o for o in parts if o.variant == "ours" and o.classes == m.classes)
        row(m.classes, m.variant, m.seconds, m.cpu_seconds, m.peak_gib, (best.seconds, best.cpu_seconds), "measured")
    for classes in dict.fromkeys(m.classes for m in ours):
        rounds = [m for m in ours if m.classes == classes and m.variant == "ours"]
        wall, cpu = (float(np.mean([getattr(m, f) for m in rounds])) for f in ("seconds", "cpu_seconds"))
        how = "measured, " + " and ".join(f"{m.seconds:.2f}" for m in rounds) + " s"
        row(classes, "ours", wall, cpu, max(m.peak_gib for m in rounds), (wall, cpu), how)
        for m in ours:
            if m.classes == classes and m.variant == "default":
                row(classes, m.variant, m.seconds, m.cpu_seconds, m.peak_gib, (wall, cpu), "measured")
        for fitted in (Line(**fields) for fields in report["lines"]):
            row(classes, fitted.variant, *fitted.at(classes), (wall, cpu), f"by the line, off {fitted.off:.1%}")
    deviation = differ(parts)
    return "\n".join([*lines, "", f"Batch {report['batch']}. Losses differ by {deviation:.1e} of the total at most."])


if __name__ == "__main__":
    main()
