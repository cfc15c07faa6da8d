"""Count the floating-point operations and bytes of a GOPro training step from its shapes.

    python -m benchmarks.flops [--json] [--classes 50 500] [--batch 4] [--views 3] [--architecture ViT-B-16]

A multiplication and an addition are two operations. Only matrix products are counted, as `torch.utils.flop_counter`
does; the tests compare the two. In formulas: B contexts (one per image and view), T tokens of all classes after the
context, C classes, M context tokens, P = 1 + M shared positions, d width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.common import about, class_names, make_backbone, make_method, make_parser, print_report
from gopro.clip.backbone import Backbone
from gopro.clip.text.memory_plan import KEPT_UNITS, KEPT_UNITS_INNER
from gopro.clip.text.packed_prompts import PackedPrompts


@dataclass(frozen=True)
class Work:
    """Operations of a training step by part, and the least bytes that must be moved."""

    image: int
    """The image tower's forward pass over every view of every image."""
    text_forward: int
    text_backward: int
    text_again: int
    """The part of the text tower's forward pass that is recomputed in backward to save memory."""
    bytes: int
    """fp32: each tower's weights once per pass, each activation that is kept written once and read once."""

    @property
    def total(self) -> int:
        return self.image + self.text_forward + self.text_backward + self.text_again


def image_tower(backbone: Backbone, images: int) -> int:
    """Count the operations of a vision transformer's forward pass."""
    visual = backbone.model.visual
    width, layers = backbone.layer_widths[0], len(backbone.layer_widths)
    patches = visual.grid_size[0] * visual.grid_size[1]
    tokens = patches + 1
    hidden = visual.transformer.resblocks[0].mlp.c_fc.out_features
    embed = 2 * patches * 3 * visual.patch_size[0] * visual.patch_size[1] * width
    block = 2 * tokens * width * (4 * width + 2 * hidden) + 4 * tokens**2 * width
    return images * (embed + layers * block + 2 * width * backbone.embed_dim)


def text_forward(prompts: PackedPrompts, contexts: int) -> int:
    """Count the operations of the packed text tower's forward pass under one context per image."""
    tower, m = prompts.tower, prompts.before
    d, layers, shared = tower.width, len(tower.blocks), prompts.before + 1
    hidden = tower.blocks[0].mlp.c_fc.out_features
    tokens, classes = prompts.tokens, len(prompts)
    after = 2 * d * (d + 2 * hidden)  # of a token after attention: the output projection and the MLP
    qkv = 2 * d * 3 * d
    # the context itself, in every layer; in the last one its keys and values only
    context = layers * m * qkv + (layers - 1) * (m * after + 4 * m * shared * d)
    pairs = sum(count * length**2 for length, count in Counter(map(len, prompts.body_ids)).items())
    inner = tokens * (qkv + after) + 4 * (pairs + tokens * shared) * d
    last = tokens * qkv + classes * after + 4 * (tokens + classes * shared) * d
    per_context = context + (layers - 1) * inner + last + 2 * classes * d * embed_dim(prompts)
    # before the first attention nothing depends on the image: queries, keys, values and scores are computed once
    saved = (contexts - 1) * (tokens * qkv + 2 * pairs * d) if layers > 1 else 0
    return contexts * per_context - saved


def text_backward(prompts: PackedPrompts, contexts: int) -> int:
    """Count the operations of the backward pass, which computes no gradients of the frozen weights."""
    tower = prompts.tower
    d, layers, shared = tower.width, len(tower.blocks), prompts.before + 1
    tokens, classes = prompts.tokens, len(prompts)
    pairs = sum(len(body) ** 2 for body in prompts.body_ids)
    # a product with a weight costs as much as in forward; one of attention twice as much: both factors have gradients
    attention = 4 * d * ((layers - 1) * (pairs + tokens * shared + prompts.before**2) + tokens + classes * shared)
    # no gradient reaches the names' embeddings, or queries, keys, values and scores computed from them alone
    saved = tokens * 2 * d * 3 * d + 2 * pairs * d
    frozen = 4 * pairs * d + 2 * tokens * shared * d
    return text_forward(prompts, contexts) + contexts * (attention - frozen) - saved


def embed_dim(prompts: PackedPrompts) -> int:
    """Return D, the width of the space that image and text features share."""
    return prompts.tower.project(prompts.tower.embed("a")).shape[-1]


def recomputed(prompts: PackedPrompts, contexts: int) -> int:
    """Count the operations that are recomputed in backward."""
    tower, tokens = prompts.tower, prompts.tokens
    layers, d = len(tower.blocks), tower.width
    plan = prompts.memory_plan(contexts, tokens, training=True)
    keep_all, keep_inputs = (min(1.0, limit / tokens) for limit in (plan.keep_all, plan.keep_inputs))
    # RECOMPUTE_INNER recomputes all but the layers after attention and at the end of the MLP; in the last block these
    # run for one token per class
    outer = 2 * d * (d + tower.blocks[0].mlp.c_fc.out_features) * ((layers - 1) * tokens + len(prompts))
    forward = text_forward(prompts, contexts)
    return int((keep_inputs - keep_all) * (forward - contexts * outer) + (1 - keep_inputs) * forward)


def step(backbone: Backbone, prompts: PackedPrompts, batch: int, views: int) -> Work:
    """Count a training step of `gopro-release`, which encodes the prompts of all views together."""
    contexts = batch * views
    block_weights = sum(p.numel() for block in prompts.tower.blocks for p in block.parameters())
    again = recomputed(prompts, contexts)
    units = KEPT_UNITS_INNER if again else KEPT_UNITS
    kept = prompts.tokens * len(prompts.tower.blocks) * units * prompts.tower.width
    numbers = sum(p.numel() for p in backbone.model.visual.parameters()) + block_weights * (3 if again else 2)
    return Work(
        image=image_tower(backbone, contexts),
        text_forward=text_forward(prompts, contexts),
        text_backward=text_backward(prompts, contexts),
        text_again=again,
        bytes=4 * (numbers + 2 * kept * contexts),
    )


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--architecture", default="ViT-B-16", metavar="NAME", help="open_clip's name of a ViT")
    parser.add_argument("--classes", type=int, nargs="+", default=[50, 500], metavar="C")
    parser.add_argument("--batch", type=int, default=4, metavar="B", help="images per step")
    parser.add_argument("--views", type=int, default=3, metavar="V", help="views per image")
    options = parser.parse_args()
    report = count(options.architecture, options.classes, options.batch, options.views)
    print_report(report, table, options.json)


def count(architecture: str, class_counts: Sequence[int], batch: int, views: int) -> dict[str, Any]:
    """Count a step and the classes' tokens at each number of classes."""
    backbone = make_backbone(architecture)
    results = []
    for classes in class_counts:
        prompts = make_method(backbone, class_names(classes)).prompts
        assert isinstance(prompts, PackedPrompts)
        work = step(backbone, prompts, batch, views)
        results.append({"classes": classes, "tokens": prompts.tokens, **asdict(work), "total": work.total})
    return {**about(), "results": results}


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown, in GFLOP and GB."""
    lines = ["| classes | tokens | image | text forward | backward | again | total | GB |", "|" + "---|" * 8]
    for row in report["results"]:
        parts = ("image", "text_forward", "text_backward", "text_again", "total", "bytes")
        figures = " | ".join(f"{row[part] / 1e9:,.1f}" for part in parts)
        lines.append(f"| {row['classes']} | {row['tokens']:,} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
