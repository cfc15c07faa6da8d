"""Compare the image tower and a training step with and without torch.compile.

    python -m benchmarks.compiled [--json] [--classes 50] [--batch 4] [--runs 5]

ViT-B/16 with random weights, fp32, `gopro-release` with three views. Plain and compiled calls alternate. `warm-up` is
how much longer the first compiled call takes than a later one; `pays after` is the number of calls that make up for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import (
    Stopwatch,
    about,
    class_names,
    make_backbone,
    make_method,
    make_parser,
    make_views,
    print_report,
)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--classes", type=int, default=50, metavar="C")
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="images per step")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="calls to take the median of")
    options = parser.parse_args()
    report = measure(options.classes, options.batch, options.runs)
    print_report(report, table, options.json)


def measure(classes: int, batch: int, runs: int) -> dict[str, Any]:
    """Time each part plain and compiled, time the first compiled call, and compare the results."""
    backbone = make_backbone()
    method = make_method(backbone, class_names(classes))
    views, labels = make_views(3, batch, backbone.preprocess.size), torch.arange(batch) % classes
    encoded = method.encode(views)

    def images(views: Tensor) -> Tensor:
        return method.encode(views).embedding

    def loss(labels: Tensor) -> Tensor:
        return torch.stack(list(method.losses(encoded, labels).values())).sum()

    compiled_loss = torch.compile(loss)

    def step(function: Callable[[Tensor], Tensor]) -> Tensor:
        method.zero_grad()
        total = function(labels)
        total.backward()
        return total.detach()

    parts = {
        "image tower": _alternate(images, torch.compile(images), views, runs),
        "losses and backward": _alternate(lambda _: step(loss), lambda _: step(compiled_loss), labels, runs),
    }
    return {**about(), "classes": classes, "batch": batch, "parts": parts}


def _alternate(
    plain: Callable[[Tensor], Tensor], compiled: Callable[[Tensor], Tensor], argument: Tensor, runs: int
) -> dict[str, float]:
    started = time.perf_counter()
    first = compiled(argument)
    warm_up = time.perf_counter() - started
    difference = (first - plain(argument)).abs().max().item()
    plain_clock, compiled_clock = Stopwatch(), Stopwatch()
    for _ in range(runs):
        plain_clock.time(plain, argument)
        compiled_clock.time(compiled, argument)
    return {
        "plain": plain_clock.wall,
        "compiled": compiled_clock.wall,
        "warm_up": warm_up - compiled_clock.wall,
        "difference": difference,
    }


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    lines = [
        f"{report['classes']} classes, batch {report['batch']}:",
        "",
        "| part | plain | compiled | ratio | warm-up | pays after | results differ by |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, part in report["parts"].items():
        saved = part["plain"] - part["compiled"]
        after = f"{part['warm_up'] / saved:.0f} calls" if saved > 0 else "never"
        lines.append(
            f"| {name} | {part['plain']:.3f} s | {part['compiled']:.3f} s | {part['plain'] / part['compiled']:.2f} | "
            f"{part['warm_up']:.0f} s | {after} | {part['difference']:.1e} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
