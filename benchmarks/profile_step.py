"""Profile a training step: the share of each kind of operation in its time.

    python -m benchmarks.profile_step [--json] [--classes 50] [--batch 4]

ViT-B/16 with random weights, `gopro-release`, three views. Shares are of each tower's time on the CPU as torch's
profiler records it, of the text tower for forward and backward. Products with weights are most of the operations that
flops.py counts; those of attention are few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import about, class_names, make_backbone, make_method, make_parser, make_views, print_report

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
    options = parser.parse_args()
    report = measure(options.classes, options.batch)
    print_report(report, table, options.json)


def measure(classes: int, batch: int) -> dict[str, Any]:
    """Measure the seconds of each kind of operation in each tower."""
    backbone = make_backbone()
    method = make_method(backbone, class_names(classes))
    views, labels = make_views(3, batch, backbone.preprocess.size), torch.arange(batch) % classes
    encoded = method.encode(views)
    torch.stack(list(method.losses(encoded, labels).values())).sum().backward()
    towers = {
        "image": _profile(lambda: method.encode(views)),
        "text": _profile(lambda: torch.stack(list(method.losses(encoded, labels).values())).sum().backward()),
    }
    return {**about(), "classes": classes, "batch": batch, "towers": towers}


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
    return "\n".join([*lines, "", f"{report['classes']} classes, batch {report['batch']}."])


if __name__ == "__main__":
    main()
