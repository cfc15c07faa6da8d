"""Draw the figures of the documents, docs/images/, from images in the package.

    python -m tools.figures [example prompt packed losses]

`example` first trains GOPro, which takes about a minute on two cores. The other figures show values of a real emoji.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Rectangle
from PIL import Image

from gopro.benchmark.report.palette import LIGHT, marks
from gopro.clip.backbone import load_backbone
from gopro.clip.text.packed_prompts import PackedPrompts
from gopro.data.images.transforms import draw_view, make_view
from gopro.data.load_dataset import load_dataset
from gopro.inference.evaluate import evaluate_images
from gopro.methods.base import Method
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.training.train import train

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
DATA = "emoji-activities"
PHOTOS = "photos"
INK, SOFT, LINE = LIGHT["ink"], LIGHT["soft"], LIGHT["line"]
STYLE, CONTENT, TEXT = LIGHT["m1"], LIGHT["m2"], LIGHT["m3"]
ZEROSHOT, GOPRO = (marks(["zeroshot", "gopro"])[name].hex for name in ("zeroshot", "gopro"))


def main(names: list[str]) -> None:
    matplotlib.use("agg")
    plt.rcParams |= {
        "font.size": 9,
        "text.color": INK,
        "svg.hashsalt": "gopro",
        "font.family": "sans-serif",
    }
    IMAGES.mkdir(exist_ok=True)
    for name in names or FIGURES:
        figure, ending = FIGURES[name](), "png" if name == "example" else "svg"
        metadata = {"Date": None} if ending == "svg" else None
        figure.savefig(IMAGES / f"{name}.{ending}", dpi=160, metadata=metadata, facecolor="white")
        plt.close(figure)


def example() -> Figure:
    """Draw eight test images, chosen by rule, with the predictions of zero-shot CLIP and of GOPro."""
    dataset = load_dataset(PHOTOS)
    with tempfile.TemporaryDirectory() as folder:
        trained = train(
            TrainConfig(data=PHOTOS, method="gopro", shots=4, seed=1, classes="base", output=Path(folder) / "run")
        ).method
    zeroshot = build_method("zeroshot", trained.backbone, trained.classnames, dataset.template)
    figure = plt.figure(figsize=(10.4, 6.2), layout="constrained")
    backbone = f"Backbone: {trained.backbone.name}, the small CLIP for photographs that comes with the package"
    figure.suptitle(backbone, x=0.01, ha="left", fontsize=9, color=SOFT)
    for half, rows in zip(("base", "new"), figure.subfigures(2, 1), strict=True):
        part = dataset.half(half)
        methods = {
            "zero-shot CLIP": zeroshot.for_classes(part.classnames),
            "GOPro": trained.for_classes(part.classnames),
        }
        accuracies = [f"{name} {evaluate_images(method, part.test).accuracy:.0f} %" for name, method in methods.items()]
        kind = "trained with 4 images each" if half == "base" else "never trained on"
        head = f"{len(part.classnames)} classes {kind}; all {len(part.test)} test images: {', '.join(accuracies)}"
        rows.suptitle(head, x=0.01, ha="left", fontsize=9, fontweight="bold")
        step = len(part.classnames) // 4
        for axes, label in zip(rows.subplots(1, 4), range(step // 2, 4 * step, step), strict=True):
            sample = next(sample for sample in part.test if sample.label == label)
            answers(axes, sample.image.open(), part.classnames[label], methods)
    return figure


def answers(axes: Axes, image: Image.Image, right: str, methods: dict[str, Method]) -> None:
    """Draw an image and, below it, bars for the three most likely classes of each method."""
    axes.set(xlim=(0, 100), ylim=(-9, 5), xticks=[], yticks=[])
    axes.spines[:].set_color(LINE)
    half = 15.8 * image.width / image.height  # of the width; 31.6 is as long as the height, 4.4
    axes.imshow(image, extent=(50 - half, 50 + half, 0.3, 4.7), aspect="auto")
    axes.text(50, -0.35, right, ha="center", va="center", fontweight="bold")
    view = make_view("eval", next(iter(methods.values())).backbone.preprocess)(image)
    at = -1.4
    for (name, method), colour in zip(methods.items(), (ZEROSHOT, GOPRO), strict=True):
        axes.text(3, at, name, fontsize=7.5, color=colour, va="center", fontweight="bold")
        with torch.no_grad():
            probabilities = method.logits(method.encode(view[None])).softmax(dim=-1)[0]
        for value, index in zip(*(t.tolist() for t in probabilities.topk(3)), strict=True):
            at -= 0.95
            guess = method.classnames[index]
            axes.add_patch(Rectangle((3, at - 0.36), 94 * value, 0.72, color=colour, alpha=0.35, linewidth=0))
            axes.text(
                4.5, at, f"{guess}  {value:.0%}", fontsize=7.5, va="center",
                fontweight="bold" if guess == right else "normal",
            )  # fmt: skip
        at -= 0.95


def prompt() -> Figure:
    """Draw the steps from an image's layer statistics to the context of its prompts."""
    backbone = load_backbone("emoji")
    sample = load_dataset(DATA).test[123]
    image = sample.image.open()
    encoded = backbone.encode(make_view("eval", backbone.preprocess)(image))
    means, stds = (t.split(backbone.layer_widths) for t in (encoded.mean, encoded.std))
    figure, axes = canvas(10.6, 5.3)
    axes.imshow(image, extent=(0.2, 1.6, 2.55, 3.95), interpolation="nearest", zorder=2)
    note(axes, 0.9, 2.4, "image x", va="top")
    shown = [0, 1, 2, len(means) - 1]
    for row, layer in enumerate(shown):
        y = 4.05 - 1.0 * row - (0.35 if row == 3 else 0)
        box(axes, 2.2, y, 1.15, 0.62, f"layer {layer + 1}", LINE)
        if row < 3:
            arrow(axes, (2.77, y), (2.77, y - 0.38 if row < 2 else y - 0.25))
        for values, colour, x, label in ((stds[layer], STYLE, 3.75, "σ"), (means[layer], CONTENT, 5.15, "μ")):
            bars(axes, values, x, y + 0.06, 1.05, 0.5, colour)
            note(axes, x - 0.1, y + 0.3, f"{label}$_{{{layer + 1}}}$", color=colour, ha="right")
        box(axes, 6.5, y + 0.33, 0.62, 0.3, f"S$_{{{layer + 1}}}$", STYLE)
        box(axes, 6.5, y - 0.02, 0.62, 0.3, f"C$_{{{layer + 1}}}$", CONTENT)
        arrow(axes, (7.14, y + 0.31), (7.75, 2.62 + 0.12 * (1.5 - row)), label=f"ρ$_{{m{layer + 1}}}$")
    note(axes, 2.77, 1.62, "⋮")
    arrow(axes, (2.77, 1.5), (2.77, 1.32))
    arrow(axes, (1.62, 3.3), (2.18, 4.3))
    note(axes, 4.25, 5.0, "style: std over\nthe layer's tokens", color=STYLE)
    note(axes, 5.65, 5.0, "content: mean over\nthe layer's tokens", color=CONTENT)
    note(axes, 6.81, 5.0, "learned\nmaps", color=SOFT)
    axes.add_patch(plt.Circle((7.97, 2.62), 0.2, facecolor="white", edgecolor=INK))
    note(axes, 7.97, 2.62, "+")
    arrow(axes, (8.17, 2.62), (8.6, 2.62))
    note(axes, 8.72, 3.85, "shift of each\nlearned context token", ha="left")
    tokens = ["SOS", "ctx$_1$", "ctx$_2$", "ctx$_3$", "ctx$_4$", *class_words(sample.label), ".", "EOT"]
    for i, token in enumerate(tokens):
        learned = token.startswith("ctx")
        box(axes, 8.65, 3.28 - 0.36 * i, 1.25, 0.32, token, TEXT if learned else LINE)
        if learned:
            note(axes, 9.98, 3.44 - 0.36 * i, "+ shift", ha="left", color=SOFT, size=7.5)
    note(axes, 9.28, 3.28 - 0.36 * len(tokens) + 0.2, "to the text tower,\nfor each class", va="top", color=SOFT)
    return figure


def class_words(label: int) -> list[str]:
    """Return the words of a class name, which are also its tokens here."""
    return load_dataset(DATA).classnames[label].split()


def packed() -> Figure:
    """Draw the positions computed for the prompts of eight classes, at full length and packed."""
    backbone = load_backbone("emoji")
    names = ["soccer ball", "kite", "chess pawn", "yo-yo", "1st place medal", "artist palette", "trophy", "game die"]
    prompts = PackedPrompts(backbone.text, names, before=4)
    lengths = [len(body) for body in prompts.body_ids]
    length = backbone.text.context_length
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 3.4), width_ratios=[2.1, 1], layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.1)
    for axes in (left, right):
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for row, (name, body) in enumerate(zip(names, lengths, strict=True)):
        cells(left, row, 0, [("sos", 1), ("ctx", 4), ("body", body), ("pad", length - 5 - body)])
        left.text(-1, row + 0.45, name, ha="right", va="center", fontsize=8)
    full = length * len(names)
    left.set(xlim=(-17, length + 1), ylim=(len(names) + 0.2, -0.4))
    left.set_title(f"full: {len(names)} × {length} = {full} positions, for every image", loc="left", fontsize=9.5)
    order = sorted(range(len(names)), key=lengths.__getitem__)
    cells(right, 0, 0, [("sos", 1), ("ctx", 4)])
    right.text(5.4, 0.45, "computed once; all classes attend to it", va="center", fontsize=8, color=SOFT)
    row = 1.6
    for body in sorted(set(lengths)):
        bucket = [c for c in order if lengths[c] == body]
        at = 0
        for c in bucket:
            cells(right, row, at, [("body", lengths[c])])
            right.text(
                at + body / 2, row + 1.0, names[c].replace(" ", "\n"), ha="center", va="top", fontsize=6.5, color=SOFT
            )
            at += lengths[c] + 1
        row += 2.7
    used = 5 + sum(lengths)
    right.set(xlim=(-0.5, 30), ylim=(max(row, len(names)) + 0.2, -0.4))
    right.set_title(f"packed: 5 + {sum(lengths)} = {used} positions", loc="left", fontsize=9.5)
    handles = [Rectangle((0, 0), 1, 1, facecolor=FILL[kind], edgecolor="white") for kind in FILL]
    figure.legend(
        handles, ["SOS", "context tokens", "class name, period, EOT", "padding"], loc="outside lower center", ncols=4,
        frameon=False, fontsize=8,
    )  # fmt: skip
    return figure


FILL = {"sos": LIGHT["bar"], "ctx": TEXT, "body": CONTENT, "pad": LIGHT["track"]}


def cells(axes: Axes, row: float, at: float, runs: list[tuple[str, int]]) -> None:
    """Draw the positions of a sequence, one square each."""
    for kind, count in runs:
        for _ in range(count):
            axes.add_patch(Rectangle((at, row), 0.9, 0.8, facecolor=FILL[kind], linewidth=0))
            at += 1


def losses() -> Figure:
    """Draw the three views of an image and the pair of features that each loss compares."""
    backbone = load_backbone("emoji")
    image = load_dataset(DATA).train[123].image.open()
    figure, axes = canvas(10.4, 4.2)
    mean, std = (np.array(v) for v in (backbone.preprocess.mean, backbone.preprocess.std))
    for row, (view, label) in enumerate((("base", "image"), ("moco", "MoCo v3 view"), ("augmix", "AugMix view"))):
        y = 2.95 - 1.32 * row
        tensor = draw_view(make_view(view, backbone.preprocess, 0.5), image, "figure", view)
        shown = (tensor.permute(1, 2, 0).numpy() * std + mean).clip(0, 1)
        axes.imshow(shown, extent=(0.2, 1.25, y, y + 1.05), interpolation="nearest", zorder=2)
        note(axes, 0.72, y - 0.1, label, size=8, color=SOFT)
        box(axes, 1.75, y + 0.3, 1.3, 0.45, "image tower", LINE)
        arrow(axes, (1.27, y + 0.52), (1.73, y + 0.52))
        box(axes, 3.6, y + 0.3, 1.3, 0.45, ("v$_x$", "v$_{mo}$", "v$_{au}$")[row] + "  image", CONTENT)
        arrow(axes, (3.07, y + 0.52), (3.58, y + 0.52))
        box(axes, 7.6, y + 0.3, 1.55, 0.45, ("t$_x$", "t$_{mo}$", "t$_{au}$")[row] + "  texts", TEXT)
        arrow(axes, (3.07, y + 0.38), (7.58, y + 0.38), bend=0.09)
        note(axes, 5.5, y + 0.0, "context → prompts → text tower" if row == 2 else "", size=7.5, color=SOFT)
    double(
        axes,
        (4.92, 3.55),
        (7.58, 3.55),
        "cross-entropy: v$_x$ against all t$_x$",
        LIGHT["right"],
        above=True,
    )
    double(axes, (4.25, 3.22), (4.25, 2.4), "contrastive:\nv$_x$ near v$_{mo}$, far from\nother images", LIGHT["wrong"])
    double(axes, (7.85, 3.22), (7.85, 2.4), "consistency:\nt$_x$ as t$_{mo}$", LIGHT["m4"])
    double(axes, (9.3, 3.45), (9.3, 0.85), "and as t$_{au}$", LIGHT["m4"])
    return figure


def canvas(width: float, height: float) -> tuple[Figure, Axes]:
    """Return an empty drawing area whose units are inches."""
    figure = plt.figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(0, width), ylim=(0, height), autoscale_on=False)
    return figure, axes


def box(axes: Axes, x: float, y: float, width: float, height: float, text: str, colour: str) -> None:
    shape = FancyBboxPatch(
        (x, y), width, height, boxstyle="round,pad=0,rounding_size=0.06", facecolor="white", edgecolor=colour,
        linewidth=1.4, zorder=2,
    )  # fmt: skip
    axes.add_patch(shape)
    note(axes, x + width / 2, y + height / 2, text)


def note(
    axes: Axes,
    x: float,
    y: float,
    text: str,
    *,
    size: float = 8.5,
    ha: str = "center",
    va: str = "center",
    color: str = INK,
    ground: str = "none",
) -> None:
    on = {"facecolor": ground, "edgecolor": "none", "pad": 1}
    axes.text(x, y, text, ha=ha, va=va, fontsize=size, color=color, zorder=3, bbox=on)


def bars(axes: Axes, values: torch.Tensor, x: float, y: float, width: float, height: float, colour: str) -> None:
    """Draw the first 24 numbers of a vector as small bars, scaled to their maximum."""
    values = values[:24] / values[:24].abs().max()
    step = width / len(values)
    for i, value in enumerate(values.tolist()):
        axes.add_patch(
            Rectangle((x + i * step, y + height / 2), 0.7 * step, value * height / 2, color=colour, linewidth=0)
        )


def arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], *, label: str = "", bend: float = 0.0
) -> None:
    patch = FancyArrowPatch(
        start, end, arrowstyle="-|>", mutation_scale=9, color=SOFT, linewidth=1, connectionstyle=f"arc3,rad={bend}",
        shrinkA=0, shrinkB=0,
    )  # fmt: skip
    axes.add_patch(patch)
    if label:
        note(axes, (start[0] + end[0]) / 2, (start[1] + end[1]) / 2, label, size=8, color=SOFT, ground="white")


def double(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], text: str, colour: str, *, above: bool = False
) -> None:
    """Draw an arrow with two heads between the inputs of a loss, labelled with its name."""
    axes.add_patch(
        FancyArrowPatch(
            start, end, arrowstyle="<|-|>", mutation_scale=11, color=colour, linewidth=1.8, shrinkA=0, shrinkB=0
        )
    )
    x, y = (start[0] + end[0]) / 2, (start[1] + end[1]) / 2
    note(axes, x if above else x + 0.12, y + 0.2 if above else y, text, ha="center" if above else "left", color=colour)


FIGURES: dict[str, Callable[[], Figure]] = {"example": example, "prompt": prompt, "packed": packed, "losses": losses}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"{', '.join(FIGURES)}; all if none is named")
    main(parser.parse_args().figures)
