"""Small matplotlib plots, as inline SVG in the page's own colours and as files."""

from __future__ import annotations

import html
import io
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from gopro.benchmark.report.palette import LIGHT, Mark
from gopro.files import slug, write_atomically

SIZE = (2.8, 1.9)
"""Width and height of a panel in inches, about as wide as a card of the page, so text is not scaled."""
TOOLTIP = "tooltip:"
"""Prefix of an artist's gid that holds a tooltip."""
PANELS_PER_ROW = 4
"""In a plot file."""

_RC = {
    "font.size": 8.5,
    "text.parse_math": False,  # names of methods and data sets may contain dollar signs
    "text.color": LIGHT["ink"],
    "axes.edgecolor": LIGHT["line"],
    "axes.labelcolor": LIGHT["soft"],
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "grid.color": LIGHT["line"],
    "grid.linewidth": 0.7,
    "xtick.color": LIGHT["line"],
    "ytick.color": LIGHT["line"],
    "xtick.labelcolor": LIGHT["soft"],
    "ytick.labelcolor": LIGHT["soft"],
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 4.5,
    "lines.solid_capstyle": "round",
}
_VARIABLES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}


@dataclass(frozen=True)
class Panel:
    """One small plot.

    Attributes:
        title: one line.
        draw: draws the plot on empty axes. An artist whose gid is `tooltip(text)` gets that text as its tooltip.
        height: in inches.
    """

    title: str
    draw: Callable[[Axes], None]
    height: float = SIZE[1]


@dataclass(frozen=True)
class Plots:
    """Panels that belong together: side by side on the page, in one file under `plots/`.

    Attributes:
        name: stem of the file's name.
        title: heading in the file.
        methods: entries of the legend.
    """

    name: str
    title: str
    panels: Sequence[Panel]
    methods: Mapping[str, Mark]


def stem(text: str) -> str:
    """Return the text as the stem of a file's name."""
    return slug(re.sub(r"[,\s]+", "-", text))


def tooltip(text: str) -> str:
    """Return the gid that gives an artist a tooltip on the page."""
    return TOOLTIP + text


def inline(panel: Panel, salt: str) -> Markup:
    """Render the panel as an <svg> without a fixed size or font, in the CSS variables of the page's colours.

    Args:
        salt: makes the ids in the SVG differ from those of other panels on the page.
    """
    with _style({"svg.fonttype": "none", "svg.hashsalt": salt}):
        figure = Figure(figsize=(SIZE[0], panel.height), layout="constrained")
        panel.draw(figure.add_subplot())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<defs>\s*</defs>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", _tag_for_page, svg[svg.index("<svg") :])
    svg = svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(panel.title)}" ', 1)
    return Markup(re.sub(r"\s*\n\s*", "\n", svg))


def _tag_for_page(tag: re.Match[str]) -> str:
    """Rewrite a tag of matplotlib's SVG for the page. The only text of ours inside a tag is a gid."""
    text = tag[0]
    if text.startswith("<svg"):
        return re.sub(r' (?:width|height|version|xmlns)="[^"]*"', "", text)
    if gid := re.match(r"""<g id=(["'])(.*)\1""", text, re.DOTALL):
        label = gid[2].removeprefix(TOOLTIP)
        end = "/>" if text.endswith("/>") else ">"
        return f"<g><title>{label}</title>" if label != gid[2] else f"<g{end}"
    text = re.sub(r"font: (?:[\w-]+ )*?([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r" ?font-family: [^;\"]*;?", "", text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda colour: _VARIABLES.get(colour[0], colour[0]), text)
    return re.sub(r"(\d\.\d)\d+", r"\1", text)


def save(plots: Plots, folder: Path) -> None:
    """Write `folder/NAME.png` and `folder/NAME.svg` atomically."""
    per_row = min(PANELS_PER_ROW, len(plots.panels))
    down = math.ceil(len(plots.panels) / per_row)
    rows = [plots.panels[i : i + per_row] for i in range(0, len(plots.panels), per_row)]
    with _style({"svg.hashsalt": plots.name}):
        legend_rows = math.ceil(len(plots.methods) / _columns(plots.methods, per_row))
        heights = [max(panel.height for panel in row) for row in rows]
        size = SIZE[0] * per_row, sum(heights) + 0.3 * down + 0.4 + 0.2 * legend_rows
        figure = Figure(figsize=size, layout="constrained")
        figure.suptitle(plots.title, x=0.01, ha="left", fontsize=11)
        grid = figure.subplots(down, per_row, squeeze=False, height_ratios=heights)
        for axes, panel in zip(grid.flat, plots.panels, strict=False):
            panel.draw(axes)
            axes.set_title(panel.title)
        for axes in grid.flat[len(plots.panels) :]:
            axes.set_axis_off()
        if plots.methods:
            handles = [Line2D([], [], **mark.line, label=method) for method, mark in plots.methods.items()]
            figure.legend(handles=handles, loc="outside lower left", ncols=_columns(plots.methods, per_row))
        folder.mkdir(parents=True, exist_ok=True)
        for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=160, facecolor="white", metadata=metadata)
            figure.set_layout_engine("none")  # keep the layout for the second file; it takes half the time
            write_atomically(folder / f"{plots.name}.{kind}", buffer.getvalue())


def _columns(methods: Mapping[str, Mark], per_row: int) -> int:
    """Return how many columns of the legend fit the figure's width, at 5.2 points per character."""
    longest = max(map(len, methods), default=0)
    return max(1, int(SIZE[0] * per_row * 72 / (5.2 * longest + 40)))


@contextmanager
def _style(more: Mapping[str, str]) -> Iterator[None]:
    """Apply our matplotlib settings. Characters that the font lacks are drawn as boxes, without a warning."""
    settings: dict[Any, Any] = {**_RC, **more}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield
