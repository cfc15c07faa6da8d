"""Read the page and the plots of a report for tests."""

from __future__ import annotations

import html.parser
import re
from pathlib import Path

from matplotlib.figure import Figure

from gopro.benchmark.report.plots.render import Panel

SECTIONS = ["summary", "results", "shots", "training", "gains", "confusions", "images", "cost", "failures"]
SECTIONS += ["next", "made"]
"""Ids of the sections of a report on all protocols, in order and without the notes."""


class ParsedPage(html.parser.HTMLParser):
    """The elements of a page with their attributes, the text of each section by its id, and all text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.sections: dict[str, str] = {}
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "section":
            self.sections[dict(attrs)["id"] or ""] = ""

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.sections:
            self.sections[list(self.sections)[-1]] += data


def collapsed(text: str) -> str:
    """Replace each run of white space by one space."""
    return re.sub(r"\s+", " ", text)


def drawn_lines(panel: Panel) -> list[tuple[list[float], list[float]]]:
    """Return the x and y of each line that a panel draws."""
    axes = Figure().add_subplot()
    panel.draw(axes)
    return [(list(map(float, line.get_xdata())), list(map(float, line.get_ydata()))) for line in axes.get_lines()]
