"""Profile a training step: the share of each kind of operation in its time.

    python -m benchmarks.profile_step [--json] [--classes 50] [--batch 4] [--rounds 9]

ViT-B/16 with random weights, `gopro-release`, three views. Shares are of each tower's time on the CPU as torch's
profiler records it, of the text tower for forward and backward. Products with weights are most of the operations that
flops.py counts; those of attention are few. The share of the machine's rate compares flops.py's operations per second
with matrix products alone, measured before and after each call, as the rate of a shared machine changes from second to
second; it is the median of several calls.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import flops, roofline
from benchmarks.common import about, class_names, make_backbone, make_method, make_parser, make_views, print_report
from gopro.clip.text.packed_prompts import PackedPrompts

KINDS = {
    "products with weights": (
        "aten::mm",
        "aten::addmm",
        "aten::mkldnn_convolution",
        "aten::_addmm_activation",
        "mkldnn::_linear_pointwise",
    ),
    "products of attention": ("aten::bmm", "aten::_scaled_dot_product_flash_attention_for_cpu"),
    "copies": ("aten::copy_", "aten::cat", "aten::index_select", "aten::index", "aten::_transform_bias_rescale_qkv"),
    "activation": ("aten::silu", "aten::silu_backward", "aten::mul", "aten::mul_"),
    "norms and softmax": (
        "aten::native_layer_norm",
        "aten::native_layer_norm_backward",
        "aten::_softmax",
        "aten::_softmax_backward_data",
    ),
}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--classes", type=int, default=50, metavar="C")
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="images per step")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="calls for the share of the rate")
    options = parser.parse_args()
    report = measure(options.classes, options.batch, options.rounds)
    print_report(report, table, options.json)


def measure(classes: int, batch: int, rounds: int) -> dict[str, Any]:
    """Measure the seconds of each kind of operation in each tower, and its share of the machine's rate."""
    backbone = make_backbone()
    method = make_method(backbone, class_names(classes))
    views, labels = make_views(3, batch, backbone.preprocess.size), torch.arange(batch) % classes
    encoded, prompts = method.encode(views), method.prompts
    assert isinstance(prompts, PackedPrompts)
    work = flops.step(backbone, prompts, batch, len(views))
    calls: dict[str, tuple[Callable[[], Any], int]] = {
        "image": (lambda: method.encode(views), work.image),
        "text": (
            lambda: torch.stack(list(method.losses(encoded, labels).values())).sum().backward(),
            work.total - work.image,
        ),
    }
    for call, _ in calls.values():
        call()
    towers = {name: _profile(call) for name, (call, _) in calls.items()}
    shares = {name: _share_of_rate(call, operations, rounds) for name, (call, operations) in calls.items()}
    return {**about(), "classes": classes, "batch": batch, "towers": towers, "shares": shares}


def _share_of_rate(call: Callable[[], Any], operations: int, rounds: int) -> float:
    shares = []
    for _ in range(rounds):
        before, started = roofline.sustained(), time.perf_counter()
        call()
        seconds = time.perf_counter() - started
        shares.append(operations / 1e9 / seconds / ((before + roofline.sustained()) / 2))
    return median(shares)


def _profile(function: Callable[[], Any]) -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        function()
    seconds = {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}
    kinds = {kind: sum(seconds.pop(name, 0.0) for name in names) for kind, names in KINDS.items()}
    return {**kinds, "all else": sum(seconds.values())}


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    towers = report["towers"]
    lines = ["| " + " | ".join(["", *towers]) + " |", "|" + "---|" * (1 + len(towers))]
    totals = {name: sum(kinds.values()) for name, kinds in towers.items()}
    lines.append("| seconds | " + " | ".join(f"{total:.2f}" for total in totals.values()) + " |")
    for kind in (*KINDS, "all else"):
        shares = (towers[name][kind] / totals[name] for name in towers)
        lines.append(f"| {kind} | " + " | ".join(f"{share:.0%}" for share in shares) + " |")
    shares = " | ".join(f"{report['shares'][name]:.0%}" for name in towers)
    lines.append(f"| **of the machine's rate** | {shares} |")
    return "\n".join([*lines, "", f"{report['classes']} classes, batch {report['batch']}."])


if __name__ == "__main__":
    main()
