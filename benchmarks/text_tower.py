"""Compare packed with full-length text encoding: features of every class per image, and the contexts' gradients.

    python -m benchmarks.text_tower [--json] [--classes 50 500] [--contexts 4] [--repeats 3] [--memory 2]

The tower has ViT-B/16's shape (12 layers, width 512, 8 heads, 77 positions) and random weights, in fp32. Up to 100
class names are Caltech101's if `../shared` has its annotations; otherwise they are made up, of 1 to 6 words. Packed
encoding keeps activations within `--memory` GiB and recomputes the rest. Full-length encoding would keep 20 MB per
class and context; it encodes 10 classes at a time and sums the gradients, which costs it no time. The two alternate, so
that other work on the machine slows both alike; beyond 100 classes full-length encoding runs once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import open_clip
import torch
from torch import Tensor

from benchmarks.common import Stopwatch, about, class_names, make_parser, print_report
from gopro.clip.text.full_prompts import FullPrompts
from gopro.clip.text.packed_prompts import PackedPrompts
from gopro.clip.text.prompts import Prompts
from gopro.clip.text.tower import TextTower
from tests.support.live_bytes import LiveBytes

GROUP = 10  # classes that full-length encoding takes at once
BEFORE = 4  # context tokens, as many as "a photo of a" has


@dataclass(frozen=True)
class Result:
    """A row of the table; seconds are the median of a step (forward and backward)."""

    classes: int
    contexts: int
    tokens_packed: int
    """Tokens of all classes after the shared context."""
    tokens_full: int
    """Positions that full-length encoding computes for one context."""
    packed_seconds: float
    full_seconds: float
    ratio: float
    packed_cpu_seconds: float
    """Processor time of all threads."""
    full_cpu_seconds: float
    cpu_ratio: float
    packed_runs: int
    full_runs: int
    feature_deviation: float
    """Largest absolute difference of unit features."""
    gradient_deviation: float
    """Largest difference of a context's gradient, relative to the largest gradient."""
    packed_peak_mib: float
    full_peak_mib: float
    """Peak bytes of tensors; of full-length encoding with 10 classes at a time."""


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[50, 500], metavar="C")
    parser.add_argument("--contexts", type=int, default=4, metavar="B", help="contexts, one per image")
    parser.add_argument("--repeats", type=int, default=3, metavar="N")
    parser.add_argument("--memory", type=float, default=2.0, metavar="GIB", help="for activations of packed encoding")
    options = parser.parse_args()
    if min(*options.classes, options.contexts, options.repeats) < 1:
        parser.error("give at least 1 for --classes, --contexts and --repeats")

    text = text_tower()
    memory = int(options.memory * 2**30)
    results = [compare(text, class_names(n), options.contexts, options.repeats, memory) for n in options.classes]
    report = {**about(), "memory_gib": options.memory, "results": [asdict(result) for result in results]}
    print_report(report, table, options.json)


def text_tower() -> TextTower:
    """Return ViT-B/16's text tower with random weights."""
    torch.manual_seed(0)
    image = open_clip.CLIPVisionCfg(image_size=16, patch_size=16, width=64, layers=1)  # not used
    config = open_clip.get_model_config("ViT-B-16")
    assert config is not None
    model = open_clip.CLIP(config["embed_dim"], image, open_clip.CLIPTextCfg(**config["text_cfg"]))
    return TextTower(model.eval().requires_grad_(False), open_clip.SimpleTokenizer())


def compare(text: TextTower, names: Sequence[str], contexts: int, repeats: int, memory: int) -> Result:
    """Time both encodings alternately and compare their results."""
    context = torch.randn(contexts, BEFORE, text.width, requires_grad=True)
    weights = torch.randn(contexts, len(names), text.project(context[:1, 0]).shape[-1])
    packed = PackedPrompts(text, names, before=BEFORE, memory=memory)
    groups = [range(at, min(at + GROUP, len(names))) for at in range(0, len(names), GROUP)]
    full = [(FullPrompts(text, [names[c] for c in group], before=BEFORE), weights[:, group]) for group in groups]
    features, gradient = step([(packed, weights)], context)  # the first call also lays out the chunks
    packed_clock, full_clock = Stopwatch(), Stopwatch()
    expected, expected_gradient = full_clock.time(step, full, context)
    packed_clock.time(step, [(packed, weights)], context)
    for _ in range(repeats - 1):
        if len(names) <= 100:
            full_clock.time(step, full, context)
        packed_clock.time(step, [(packed, weights)], context)
    with LiveBytes() as packed_memory:
        step([(packed, weights)], context)
    with LiveBytes() as full_memory:
        step(full[:1], context)
    return Result(
        classes=len(names),
        contexts=contexts,
        tokens_packed=packed.tokens,
        tokens_full=len(names) * text.context_length,
        packed_seconds=packed_clock.wall,
        full_seconds=full_clock.wall,
        ratio=full_clock.wall / packed_clock.wall,
        packed_cpu_seconds=packed_clock.cpu,
        full_cpu_seconds=full_clock.cpu,
        cpu_ratio=full_clock.cpu / packed_clock.cpu,
        packed_runs=len(packed_clock.walls),
        full_runs=len(full_clock.walls),
        feature_deviation=(features - expected).abs().max().item(),
        gradient_deviation=((gradient - expected_gradient).abs().max() / expected_gradient.abs().max()).item(),
        packed_peak_mib=packed_memory.peak / 2**20,
        full_peak_mib=full_memory.peak / 2**20,
    )


def step(parts: Sequence[tuple[Prompts, Tensor]], context: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features [B, C, D] of all parts, and the context's gradient of their product with weights."""
    context.grad = None
    features = []
    for prompts, weights in parts:
        part = prompts(context)
        (part * weights).sum().backward()
        features.append(part.detach())
    assert context.grad is not None
    return torch.cat(features, dim=1), context.grad


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
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
