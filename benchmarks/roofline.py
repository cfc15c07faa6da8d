"""Measure the machine's limits: its rate of fp32 matrix products in the towers' shapes, and of moving memory.

    python -m benchmarks.roofline [--json]

The other benchmarks compare their speed with these rates, the roofline. Each rate is the best of several runs. The
products are computed by the library that the towers use on this machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import fmean, median
from typing import Any

import torch

from benchmarks.common import about, make_parser, print_report
from gopro.clip.faster_layers.onednn_products import frozen_linear

SHAPES = {  # rows, inputs, outputs
    "large": (2048, 2048, 2048),
    "image MLP": (12 * 197, 768, 3072),
    "text MLP": (12 * 172, 512, 2048),
}


def main() -> None:
    options = make_parser(__doc__).parse_args()
    print_report(measure(), table, options.json)


def measure(seconds: float = 1.0) -> dict[str, Any]:
    """Measure GFLOP/s of each shape and GB/s read and written by a copy, each for so many seconds."""
    gflops = {}
    for name, (rows, inputs, outputs) in SHAPES.items():
        x, w = torch.randn(rows, inputs), torch.randn(outputs, inputs)
        gflops[name] = 2 * rows * inputs * outputs / _best(lambda x=x, w=w: frozen_linear(x, w, None), seconds) / 1e9
    source = torch.randn(1 << 26)  # 256 MiB, more than any cache
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / _best(lambda: target.copy_(source), seconds) / 1e9
    return {**about(), "gflops": gflops, "gigabytes": copied}


def sustained() -> float:
    """Return GFLOP/s over all shapes, each the median of a few calls: the machine's rate at this moment."""
    rates = []
    for rows, inputs, outputs in SHAPES.values():
        x, w = torch.randn(rows, inputs), torch.randn(outputs, inputs)
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            frozen_linear(x, w, None)
            seconds.append(time.perf_counter() - started)
        rates.append(2 * rows * inputs * outputs / median(seconds) / 1e9)
    return fmean(rates)


def _best(function: Callable[[], Any], seconds: float) -> float:
    """Return the seconds of the fastest of several calls."""
    function()
    end, best = time.perf_counter() + seconds, float("inf")
    while time.perf_counter() < end:
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    shapes = {name: "{} × {} by {} × {}".format(*shape[:2], *shape[1:]) for name, shape in SHAPES.items()}
    lines = ["| operation | rate |", "|---|---|"]
    lines += [f"| {name}: {shapes[name]} | {rate:.0f} GFLOP/s |" for name, rate in report["gflops"].items()]
    return "\n".join([*lines, f"| copy, read and written | {report['gigabytes']:.1f} GB/s |"])


if __name__ == "__main__":
    main()
