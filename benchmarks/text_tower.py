"""Packed against full text encoding: features of every class under one context an image, and the contexts' gradients.

    python -m benchmarks.text_tower [--json] [--classes 50 500] [--contexts 4] [--repeats 3] [--memory 2]

The tower has ViT-B/16's shape (12 layers, width 512, 8 heads, 77 positions) and random weights, in fp32. Up to 100
class names are Caltech101's where `../shared` holds them; beyond that, and without them, they are made up, of 1 to 6
words. The packed path keeps to `--memory` GiB of activations and recomputes what finds no room. The full path would
keep 20 MB a class and context: it takes 10 classes at a time and adds the gradients up, which costs it no time. Both
take turns, so that whatever else the machine does meets both; beyond 100 classes the full path runs once.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import open_clip
import torch
from torch import Tensor

from benchmarks.memory import LiveBytes
from benchmarks.setting import Stopwatch, about, class_names
from gopro.clip.packed_prompts import PackedPrompts
from gopro.clip.prompts import FullPrompts, Prompts
from gopro.clip.text_tower import TextTower

GROUP = 10  # classes that the full path takes at once
BEFORE = 4  # tokens of a context, as of "a photo of a"


@dataclass(frozen=True)
class Result:
    """One line of the table. Seconds are of a step (forward and backward), the median of the runs."""

    classes: int
    contexts: int
    tokens_packed: int
    """Tokens of all classes behind the shared context."""
    tokens_full: int
    """Positions that the full path computes, for one context."""
    packed_seconds: float
    full_seconds: float
    ratio: float
    packed_cpu_seconds: float
    """Processor time of all threads: what is left of the noise that other programs make."""
    full_cpu_seconds: float
    cpu_ratio: float
    packed_runs: int
    full_runs: int
    feature_deviation: float
    """Largest absolute difference of unit features."""
    gradient_deviation: float
    """Largest difference of a context's gradient over the largest gradient."""
    packed_peak_mib: float
    full_peak_mib: float
    """Both: most bytes that tensors held at one time; the full path's with 10 classes at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--classes", type=int, nargs="+", default=[50, 500], metavar="C")
    parser.add_argument("--contexts", type=int, default=4, metavar="B", help="contexts, one an image")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--memory", type=float, default=2.0, metavar="GIB", help="of the packed path's activations")
    options = parser.parse_args()
    if min(*options.classes, options.contexts, options.repeats) < 1:
        parser.error("classes, contexts and repeats must be at least 1")

    text = text_tower()
    memory = int(options.memory * 2**30)
    results = [compare(text, class_names(n), options.contexts, options.repeats, memory) for n in options.classes]
    report = {**about(), "memory_gib": options.memory, "results": [asdict(result) for result in results]}
    if options.json:
        print(json.dumps(report))
    else:
        print(f"{report['machine']}, {report['threads']} threads, torch {report['torch']}")
        print(table(report))


def text_tower() -> TextTower:
    """ViT-B/16's text tower with random weights."""
    torch.manual_seed(0)
    image = open_clip.CLIPVisionCfg(image_size=16, patch_size=16, width=64, layers=1)  # takes no part
    config = open_clip.get_model_config("ViT-B-16")
    assert config is not None
    model = open_clip.CLIP(config["embed_dim"], image, open_clip.CLIPTextCfg(**config["text_cfg"]))
    return TextTower(model.eval().requires_grad_(False), open_clip.SimpleTokenizer())


def compare(text: TextTower, names: Sequence[str], contexts: int, repeats: int, memory: int) -> Result:
    """Times both paths in turns, and holds the packed path's result against the full one's."""
    context = torch.randn(contexts, BEFORE, text.width, requires_grad=True)
    weights = torch.randn(contexts, len(names), text.project(context[:1, 0]).shape[-1])
    packed = PackedPrompts(text, names, before=BEFORE, memory=memory)
    groups = [range(at, min(at + GROUP, len(names))) for at in range(0, len(names), GROUP)]
    full = [(FullPrompts(text, [names[c] for c in group], before=BEFORE), weights[:, group]) for group in groups]
    features, gradient = step([(packed, weights)], context)  # lays the chunks out, too
    ours, theirs = Stopwatch(), Stopwatch()
    expected, expected_gradient = theirs.time(step, full, context)
    ours.time(step, [(packed, weights)], context)
    for _ in range(repeats - 1):
        if len(names) <= 100:
            theirs.time(step, full, context)
        ours.time(step, [(packed, weights)], context)
    with LiveBytes() as packed_memory:
        step([(packed, weights)], context)
    with LiveBytes() as full_memory:
        step(full[:1], context)
    return Result(
        classes=len(names),
        contexts=contexts,
        tokens_packed=sum(map(len, packed.body_ids)),
        tokens_full=len(names) * text.context_length,
        packed_seconds=ours.wall,
        full_seconds=theirs.wall,
        ratio=theirs.wall / ours.wall,
        packed_cpu_seconds=ours.cpu,
        full_cpu_seconds=theirs.cpu,
        cpu_ratio=theirs.cpu / ours.cpu,
        packed_runs=len(ours.walls),
        full_runs=len(theirs.walls),
        feature_deviation=(features - expected).abs().max().item(),
        gradient_deviation=((gradient - expected_gradient).abs().max() / expected_gradient.abs().max()).item(),
        packed_peak_mib=packed_memory.peak / 2**20,
        full_peak_mib=full_memory.peak / 2**20,
    )


def step(parts: Sequence[tuple[Prompts, Tensor]], context: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, C, D] of the classes of all parts, and the gradient at the context of their product with weights."""
    context.grad = None
    features = []
    for prompts, weights in parts:
        of_part = prompts(context)
        (of_part * weights).sum().backward()
        features.append(of_part.detach())
    assert context.grad is not None
    return torch.cat(features, dim=1), context.grad


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    head = "classes × contexts | packed s | full s | ratio | CPU packed s | CPU full s | ratio | features | gradients"
    lines = [f"| {head} | peak packed, full MiB |", "|" + "---|" * 10]
    for r in (Result(**result) for result in report["results"]):
        lines.append(
            f"| {r.classes} × {r.contexts} | {r.packed_seconds:.2f} | {r.full_seconds:.1f} | {r.ratio:.1f} "
            f"| {r.packed_cpu_seconds:.2f} | {r.full_cpu_seconds:.1f} | {r.cpu_ratio:.1f} "
            f"| {r.feature_deviation:.1e} | {r.gradient_deviation:.1e} "
            f"| {r.packed_peak_mib:.0f}, {r.full_peak_mib:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
