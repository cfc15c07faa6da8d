"""Colours and marks of the page and of plot files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

LIGHT = {
    "paper": "#fbfaf8",
    "card": "#ffffff",
    "ink": "#1d1f24",
    "soft": "#5f6470",
    "line": "#e3e1dc",
    "track": "#eceae5",
    "up": "#1b5fa8",
    "down": "#a8480d",
    "up-bar": "#6ea3d8",
    "down-bar": "#e39a62",
    "right": "#14733f",
    "wrong": "#b3261e",
    "right-bar": "#3aa76d",
    "wrong-bar": "#dc6a60",
    "bar": "#a9adb8",
    "m0": "#7a7f8c",
    "m1": "#c8751a",
    "m2": "#3446c4",
    "m3": "#14866d",
    "m4": "#a8348e",
    "m5": "#8a6d00",
    "m6": "#0f7ea6",
    "m7": "#a3472f",
}
"""Colours of the light scheme by name, also used in plot files. They all differ: `plots` maps them back to names."""

DARK = {
    "paper": "#15161a",
    "card": "#1d1f25",
    "ink": "#e8e8ec",
    "soft": "#a0a4b0",
    "line": "#30333c",
    "track": "#2b2e36",
    "up": "#8cc0f5",
    "down": "#f0a877",
    "up-bar": "#3f74ab",
    "down-bar": "#a8622c",
    "right": "#6fd39c",
    "wrong": "#ff9189",
    "right-bar": "#3c9c68",
    "wrong-bar": "#c4554c",
    "bar": "#666b78",
    "m0": "#a3a8b5",
    "m1": "#eda255",
    "m2": "#9aa8ff",
    "m3": "#55c7ab",
    "m4": "#e58bd0",
    "m5": "#d6b945",
    "m6": "#62bfe6",
    "m7": "#e59680",
}
"""Colours of the dark scheme, under the same names."""

SHAPES = ("o", "s", "D", "^", "v", "P", "X")
"""Matplotlib's markers; the page's style sheet draws the same shapes."""
COLOURS = 8
"""Colours of methods; the first is for zero-shot CLIP."""
ZEROSHOT = "zeroshot"


@dataclass(frozen=True)
class Mark:
    """Colour and shape of a method in all plots and tables, as indices into the colours `m0`, `m1`, ... and SHAPES."""

    colour: int
    shape: int

    @property
    def hex(self) -> str:
        """Colour in the light scheme."""
        return LIGHT[f"m{self.colour}"]

    @property
    def marker(self) -> str:
        """Shape as a marker of matplotlib."""
        return SHAPES[self.shape]

    @property
    def css(self) -> str:
        """CSS classes of the page."""
        return f"m{self.colour} s{self.shape}"


def is_zeroshot(method: str) -> bool:
    """Return True for zero-shot CLIP with any settings, such as `zeroshot[ensemble=80]`."""
    return method.split("[")[0] == ZEROSHOT


def marks(methods: Iterable[str]) -> dict[str, Mark]:
    """Assign a mark to each method, grey to zero-shot CLIP.

    The others cycle through the 7 remaining colours with shifted shapes: the first 49 marks differ.
    """
    distinct = dict.fromkeys(methods)
    trained = (method for method in distinct if not is_zeroshot(method))
    zeroshot = (method for method in distinct if is_zeroshot(method))
    assigned = {method: Mark(0, index % len(SHAPES)) for index, method in enumerate(zeroshot)}
    for index, method in enumerate(trained):
        rounds, colour = divmod(index, COLOURS - 1)
        assigned[method] = Mark(1 + colour, (colour + rounds) % len(SHAPES))
    return assigned
