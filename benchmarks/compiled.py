"""Whether torch.compile pays: the image tower and a training step, compiled and as they are, in turn.

    python -m benchmarks.compiled [--json] [--classes 50] [--batch 4] [--runs 5]

ViT-B/16 with random weights, fp32, `gopro-release` with three views. `warm-up` is the time of the first compiled call
over that of a later one; `pays after` says how many calls make up for it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.setting import Stopwatch, about, class_names, make_backbone, make_views, start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--classes", type=int, default=50, metavar="C")
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="images a step")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="calls that the medians are of")
    options = parser.parse_args()
    report = measure(options.classes, options.batch, options.runs)
    print(json.dumps(report) if options.json else table(report))


def measure(classes: int, batch: int, runs: int) -> dict[str, Any]:
    """Seconds of each part as it is and compiled, of the first compiled call, and how far the results are apart."""
    backbone = make_backbone()
    method = start(backbone, class_names(classes))
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
        "image tower": _in_turn(images, torch.compile(images), views, runs),
        "losses and backward": _in_turn(lambda _: step(loss), lambda _: step(compiled_loss), labels, runs),
    }
    return {**about(), "classes": classes, "batch": batch, "parts": parts}


def _in_turn(
    plain: Callable[[Tensor], Tensor], compiled: Callable[[Tensor], Tensor], given: Tensor, runs: int
) -> dict[str, float]:
    started = time.perf_counter()
    first = compiled(given)
    warm_up = time.perf_counter() - started
    apart = (first - plain(given)).abs().max().item()
    as_is, faster = Stopwatch(), Stopwatch()
    for _ in range(runs):
        as_is.time(plain, given)
        faster.time(compiled, given)
    return {"plain": as_is.wall, "compiled": faster.wall, "warm_up": warm_up - faster.wall, "apart": apart}


def table(report: dict[str, Any]) -> str:
    """As Markdown."""
    lines = [
        f"{report['classes']} classes, batch {report['batch']}:",
        "",
        "| part | as it is | compiled | ratio | warm-up | pays after | results differ by |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for name, part in report["parts"].items():
        saved = part["plain"] - part["compiled"]
        after = f"{part['warm_up'] / saved:.0f} calls" if saved > 0 else "never"
        lines.append(
            f"| {name} | {part['plain']:.3f} s | {part['compiled']:.3f} s | {part['plain'] / part['compiled']:.2f} | "
            f"{part['warm_up']:.0f} s | {after} | {part['apart']:.1e} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
