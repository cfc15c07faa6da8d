"""Colours and marks of the page and of plot files."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any
from zlib import crc32

LIGHT = {
    "paper": "#fbfaf8",
    "card": "#ffffff",
    "ink": "#1d1f24",
    "soft": "#5f6470",
    "line": "#e3e1dc",
    "track": "#eceae5",
    "ours": "#e6e8f6",
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
    "ours": "#282c42",
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
PLAIN = 5
"""The first of them, whose outline can still be recognised at the size of a dot."""
COLOURS = 8
"""Colours of methods; the first is for zero-shot CLIP."""
ZEROSHOT = "zeroshot"


@dataclass(frozen=True)
class Mark:
    """Colour and shape of a method in all plots and tables, as indices into the colours `m0`, `m1`, ... and SHAPES.

    Attributes:
        hollow: only the outline is drawn: a method with settings.
    """

    colour: int
    shape: int
    hollow: bool = False

    @property
    def hex(self) -> str:
        """Colour in the light scheme."""
        return LIGHT[f"m{self.colour}"]

    @property
    def marker(self) -> str:
        """Shape as a marker of matplotlib."""
        return SHAPES[self.shape]

    @property
    def line(self) -> dict[str, Any]:
        """Arguments for a line or dot of matplotlib: colour, marker, and how the marker is filled."""
        filled = {"markerfacecolor": LIGHT["card"]} if self.hollow else {}
        return {"color": self.hex, "marker": self.marker, **filled}

    @property
    def css(self) -> str:
        """CSS classes of the page."""
        return f"m{self.colour} s{self.shape}{' hollow' if self.hollow else ''}"


_MARKS = {
    "zeroshot": Mark(0, 0),
    "linear-probe": Mark(5, 6),
    "tip-adapter": Mark(1, 1),
    "tip-adapter-f": Mark(1, 4),
    "coop": Mark(3, 0),
    "cocoop": Mark(3, 3),
    "kgcoop": Mark(3, 5),
    "maple": Mark(4, 1),
    "promptsrc": Mark(4, 4),
    "mmrl": Mark(4, 0),
    "slip": Mark(6, 3),
    "stylip": Mark(6, 5),
    "gopro": Mark(2, 2),
    "gopro-paper": Mark(2, 1),
    "gopro-release": Mark(2, 3),
    "gopro-kernel": Mark(2, 5),
}
"""The marks of the methods in this package. Related methods share a colour."""


def is_zeroshot(method: str) -> bool:
    """Return True for zero-shot CLIP with any settings, such as `zeroshot[ensemble=80]`."""
    return method.split("[")[0] == ZEROSHOT


def ours(methods: Iterable[str]) -> set[str]:
    """Return the methods whose rows are set off: GOPro, or its variants with settings if it was not run without."""
    variants = {method for method in methods if method.split("[")[0] == "gopro"}
    return variants & {"gopro"} or variants


def marks(methods: Iterable[str]) -> dict[str, Mark]:
    """Assign a mark to each method, the same in every report: grey to zero-shot CLIP, indigo to GOPro.

    A method with settings, `gopro[con=0]`, has the colour of its method and an outline whose shape follows from the
    settings. A method of somebody's own has a colour and shape that follow from its name. Only where two of these
    coincide does the second in alphabetical order get another shape and, when those run out, another colour: the first
    49 methods with settings all differ, and so do the first 35 of somebody's own.
    """
    distinct = list(dict.fromkeys(methods))
    taken: dict[Mark, str] = {}
    for method in sorted(distinct, key=lambda method: (method not in _MARKS, method)):
        taken[_free_mark(method, set(taken) | set(_MARKS.values()))] = method
    mark_of = {method: mark for mark, method in taken.items()}
    return {method: mark_of[method] for method in distinct}


def _free_mark(method: str, taken: Collection[Mark]) -> Mark:
    """Return the method's own mark, or the next one if another method has it."""
    if method in _MARKS:
        return _MARKS[method]
    name, bracket, _ = method.partition("[")
    number = crc32(method.encode())  # unlike hash(), the same in every process
    colour = _MARKS[name].colour if name in _MARKS else 1 + crc32(name.encode()) % (COLOURS - 1)
    for turn in range(COLOURS):
        own = colour if turn == 0 else 1 + (colour - 1 + turn) % (COLOURS - 1)
        for shape in [*((number + step) % PLAIN for step in range(PLAIN)), *range(PLAIN, len(SHAPES))]:
            mark = Mark(own, shape, bool(bracket))
            if mark not in taken:
                return mark
    return Mark(colour, number % PLAIN, bool(bracket))
