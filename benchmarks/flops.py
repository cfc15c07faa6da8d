"""The floating-point operations and bytes that a step of GOPro must do, counted from shapes.

    python -m benchmarks.flops [--json] [--classes 50 500] [--batch 4] [--views 3] [--architecture ViT-B-16]

A multiplication and an addition are two operations. Only matrix products are counted, which is what
`torch.utils.flop_counter` counts; the tests hold one against the other. Names in formulas: B contexts (one an image
and view), T tokens of all classes behind the context, C classes, M context tokens, P = 1 + M shared positions, d width.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from benchmarks.setting import about, class_names, make_backbone, start
from gopro.clip.backbone import Backbone
from gopro.clip.packed_prompts import PARTS, PackedPrompts
from gopro.clip.prompts import LEAN_WIDTHS, SAVED_WIDTHS


@dataclass(frozen=True)
class Work:
    """Operations of a step by where they are done, and the least bytes that must move."""

    image: int
    """The image tower on every view of every image, forward."""
    text_forward: int
    text_backward: int
    text_again: int
    """Forward once more, in backward, of what found no room."""
    bytes: int
    """fp32: each tower's weights once a pass, each activation that is kept written once and read once."""

    @property
    def total(self) -> int:
        return self.image + self.text_forward + self.text_backward + self.text_again


def image_tower(backbone: Backbone, images: int) -> int:
    """Operations of a vision transformer, forward."""
    visual = backbone.model.visual
    width, layers = backbone.layer_widths[0], len(backbone.layer_widths)
    patches = visual.grid_size[0] * visual.grid_size[1]
    tokens = patches + 1
    hidden = visual.transformer.resblocks[0].mlp.c_fc.out_features
    embed = 2 * patches * 3 * visual.patch_size[0] * visual.patch_size[1] * width
    block = 2 * tokens * width * (4 * width + 2 * hidden) + 4 * tokens**2 * width
    return images * (embed + layers * block + 2 * width * backbone.embed_dim)


def text_forward(prompts: PackedPrompts, contexts: int) -> int:
    """Operations of the packed text tower under a context an image, forward."""
    tower, m = prompts.tower, prompts.before
    d, layers, shared = tower.width, len(tower.blocks), prompts.before + 1
    hidden = tower.blocks[0].mlp.c_fc.out_features
    tokens, classes = sum(map(len, prompts.body_ids)), len(prompts)
    after = 2 * d * (d + 2 * hidden)  # what a token costs behind attention: its output map and the MLP
    qkv = 2 * d * 3 * d
    # the context itself: layer by layer, the last one's keys and values only
    context = layers * m * qkv + (layers - 1) * (m * after + 4 * m * shared * d)
    pairs = sum(count * length**2 for length, count in Counter(map(len, prompts.body_ids)).items())
    inner = tokens * (qkv + after) + 4 * (pairs + tokens * shared) * d
    last = tokens * qkv + classes * after + 4 * (tokens + classes * shared) * d
    of_all = context + (layers - 1) * inner + last + 2 * classes * d * embed_dim(prompts)
    # before the first attention nothing depends on the image: queries, keys, values and scores are computed once
    spared = (contexts - 1) * (tokens * qkv + 2 * pairs * d) if layers > 1 else 0
    return contexts * of_all - spared


def text_backward(prompts: PackedPrompts, contexts: int) -> int:
    """Operations of its backward: towards the inputs alone, as the weights are frozen."""
    tower = prompts.tower
    d, layers, shared = tower.width, len(tower.blocks), prompts.before + 1
    tokens, classes = sum(map(len, prompts.body_ids)), len(prompts)
    pairs = sum(len(body) ** 2 for body in prompts.body_ids)
    # products with a weight cost as much again, those of attention twice as much: both factors take part
    attention = 4 * d * ((layers - 1) * (pairs + tokens * shared + prompts.before**2) + tokens + classes * shared)
    # no gradient reaches the names' embeddings, nor queries, keys, values and scores that come from them alone
    spared = tokens * 2 * d * 3 * d + 2 * pairs * d
    frozen = 4 * pairs * d + 2 * tokens * shared * d
    return text_forward(prompts, contexts) + contexts * (attention - frozen) - spared


def embed_dim(prompts: PackedPrompts) -> int:
    """D, the size of the shared space."""
    return prompts.tower.project(prompts.tower.embed("a")).shape[-1]


def again(prompts: PackedPrompts, contexts: int) -> int:
    """Operations of what is computed again in backward: all but the maps behind attention and MLPs, or all at that."""
    tower = prompts.tower
    tokens, layers, d = sum(map(len, prompts.body_ids)), len(tower.blocks), tower.width
    room = prompts.memory // (contexts * d * 4 * layers)
    if tokens <= room // SAVED_WIDTHS:
        return 0
    room -= room // PARTS
    plain = max(0, room - LEAN_WIDTHS * tokens) / (SAVED_WIDTHS - LEAN_WIDTHS) / tokens
    kept = min(1.0, room / LEAN_WIDTHS / tokens)
    # queries are computed for all tokens, the other maps of the last layer for one a class
    behind = 2 * d * (d + tower.blocks[0].mlp.c_fc.out_features) * ((layers - 1) * tokens + len(prompts))
    whole = text_forward(prompts, contexts)
    return int((kept - plain) * (whole - contexts * behind) + (1 - kept) * whole)


def step(backbone: Backbone, prompts: PackedPrompts, batch: int, views: int) -> Work:
    """A training step of `gopro-release`, the prompts of all views together."""
    contexts = batch * views
    block_weights = sum(p.numel() for block in prompts.tower.blocks for p in block.parameters())
    redone = again(prompts, contexts)
    widths = LEAN_WIDTHS if redone else SAVED_WIDTHS
    kept = sum(map(len, prompts.body_ids)) * len(prompts.tower.blocks) * widths * prompts.tower.width
    numbers = sum(p.numel() for p in backbone.model.visual.parameters()) + block_weights * (3 if redone else 2)
    return Work(
        image=image_tower(backbone, contexts),
        text_forward=text_forward(prompts, contexts),
        text_backward=text_backward(prompts, contexts),
        text_again=redone,
        bytes=4 * (numbers + 2 * kept * contexts),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--architecture", default="ViT-B-16", metavar="NAME", help="open_clip's name of a ViT")
    parser.add_argument("--classes", type=int, nargs="+", default=[50, 500], metavar="C")
    parser.add_argument("--batch", type=int, default=4, metavar="B")
    parser.add_argument("--views", type=int, default=3, metavar="V")
    options = parser.parse_args()
    report = count(options.architecture, options.classes, options.batch, options.views)
    print(json.dumps(report) if options.json else table(report))


def count(architecture: str, class_counts: Sequence[int], batch: int, views: int) -> dict[str, Any]:
    """The work of a step at each number of classes, and the tokens of the classes."""
    backbone = make_backbone(architecture)
    results = []
    for classes in class_counts:
        prompts = start(backbone, class_names(classes)).prompts
        assert isinstance(prompts, PackedPrompts)
        work = step(backbone, prompts, batch, views)
        tokens = sum(map(len, prompts.body_ids))
        results.append({"classes": classes, "tokens": tokens, **asdict(work), "total": work.total})
    return {**about(), "results": results}


def table(report: dict[str, Any]) -> str:
    """The report in Markdown, in GFLOP and GB."""
    lines = ["| classes | tokens | image | text forward | backward | again | total | GB |", "|" + "---|" * 8]
    for row in report["results"]:
        parts = ("image", "text_forward", "text_backward", "text_again", "total", "bytes")
        figures = " | ".join(f"{row[part] / 1e9:,.1f}" for part in parts)
        lines.append(f"| {row['classes']} | {row['tokens']:,} | {figures} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
