"""What the machine can do: its rate of fp32 matrix products, at the towers' shapes, and of moving memory.

    python -m benchmarks.roof [--json]

The rates are the roof under which everything else is measured; each is the best of several runs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.setting import about

SHAPES = {  # rows, inputs, outputs
    "large": (2048, 2048, 2048),
    "image MLP": (12 * 197, 768, 3072),
    "text MLP": (12 * 172, 512, 2048),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    report = measure()
    print(json.dumps(report) if parser.parse_args().json else table(report))


def measure(seconds: float = 1.0) -> dict[str, Any]:
    """GFLOP/s of each shape, and GB/s read and written by a copy; each tried for so long."""
    gflops = {}
    for name, (rows, inputs, outputs) in SHAPES.items():
        x, w = torch.randn(rows, inputs), torch.randn(outputs, inputs)
        gflops[name] = 2 * rows * inputs * outputs / _best(lambda x=x, w=w: x @ w.T, seconds) / 1e9
    source = torch.randn(1 << 26)  # 256 MiB, more than any cache
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / _best(lambda: target.copy_(source), seconds) / 1e9
    return {**about(), "gflops": gflops, "gigabytes": copied}


def _best(function: Callable[[], Any], seconds: float) -> float:
    """Seconds of the fastest call of several."""
    function()
    end, best = time.perf_counter() + seconds, float("inf")
    while time.perf_counter() < end:
        started = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - started)
    return best


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    shapes = {name: "{} × {} by {} × {}".format(*shape[:2], *shape[1:]) for name, shape in SHAPES.items()}
    lines = ["| what | rate |", "|---|---|"]
    lines += [f"| {name}: {shapes[name]} | {rate:.0f} GFLOP/s |" for name, rate in report["gflops"].items()]
    return "\n".join([*lines, f"| copy, read and written | {report['gigabytes']:.1f} GB/s |"])


if __name__ == "__main__":
    main()
