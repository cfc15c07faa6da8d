"""One self-contained HTML page of results: a table, a plot, pictures with what each method sees in them."""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup, escape
from PIL import Image

from gopro.report.chart import WIDTH, colours, panels
from gopro.report.tables import AVERAGE, COLUMNS, BaseToNewRow, best, blocks, notes

LARGEST_SIDE = 256
"""Of an embedded picture, in pixels; larger ones are scaled down, so that the page stays small."""


@dataclass(frozen=True)
class SampleCard:
    """A picture, its true class, and each method's likeliest classes with their probabilities, best first."""

    picture: Image.Image
    truth: str
    predictions: Mapping[str, Sequence[tuple[str, float]]]


def write_page(
    path: Path,
    *,
    title: str,
    intro: str,
    rows: Sequence[BaseToNewRow],
    samples: Sequence[SampleCard],
    facts: Mapping[str, str],
    next_steps: Sequence[str],
) -> Path:
    """Write one HTML file that needs nothing but itself: no script, no request.

    The file appears whole or not at all. All text is escaped; what stands between backticks in `intro`, `facts` and
    `next_steps` is set as code, as a block where it is a line of its own among several.
    What is empty takes no room on the page.

    Args:
        path: the file to write; its folder is made where it is absent.
        rows: what `base_to_new` returned.
        samples: shown in this order.
        facts: label to text: machine, versions, command, time.
        next_steps: one sentence or command each.

    Returns: `path`.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("gopro.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"code_spans": _code_spans, "data_url": _data_url}
    html = environment.get_template("page.html").render(
        title=title,
        intro=intro,
        blocks=[(block, best(block)) for block in blocks(rows)],
        columns=COLUMNS,
        average=AVERAGE,
        seeds=max((row.hm.count for row in rows), default=0),
        notes=notes(rows),
        colours=colours(rows),
        panels=panels(rows),
        panel_width=WIDTH,
        samples=samples,
        facts=facts,
        next_steps=next_steps,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(html, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def _code_spans(text: str) -> Markup:
    """The text escaped, with `…` as <code>, in a block where it is a line of its own among several."""
    lines = text.splitlines()
    html = Markup()
    for line in lines:
        if len(lines) > 1 and (alone := re.fullmatch(r"\s*`([^`]+)`\s*", line)):
            html += Markup("<pre><code>{}</code></pre>").format(alone[1])
        else:
            for index, part in enumerate(re.split(r"`([^`]+)`", line)):
                html += Markup("<code>{}</code>").format(part) if index % 2 else escape(part)
            html += "\n"
    return html


def _data_url(picture: Image.Image) -> str:
    """The picture as a data: URL, PNG, at most LARGEST_SIDE pixels a side."""
    small = picture.convert("RGB")
    small.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
