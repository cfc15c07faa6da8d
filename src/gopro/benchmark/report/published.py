"""What the GOPro paper prints (arXiv 2308.11605), to be shown beside what was measured in the same setting."""

from __future__ import annotations

import csv
from collections.abc import Collection
from functools import cache
from importlib.resources import files

from gopro.benchmark.report.table import AVERAGE

BACKBONE, SHOTS = "ViT-B-16:openai", 16
"""The one setting of all published figures."""

SOURCE = "imagenet"
"""What the published models of the transfer protocols were trained on."""

METHODS: dict[str, tuple[str, ...]] = {
    "CLIP": ("zeroshot",),
    "SLIP": ("slip",),
    "CoOp": ("coop",),
    "CoCoOp": ("cocoop",),
    "MaPLe": ("maple",),
    "StyLIP": ("stylip",),
    "GOPro": ("gopro", "gopro-release"),
}
"""The paper's names, and what the methods are called here. One with settings, `gopro[con=0]`, is none of them."""

UNLEARNED = "CLIP"
"""The published method that learns from no images, so that its figures hold for any number of shots."""

FAULTY = {
    ("oxford_flowers", "New", "CoCoOp"): "oxford_flowers, CoCoOp: the published New of 71.15 does not fit its own row; "
    "its HM and the average over data sets fit 71.75",
}
"""What to say where a printed figure, by block, column and published name, cannot be right."""

Figures = dict[tuple[str, str], dict[str, float]]
"""Percent by block and column of a table (the block of a transfer protocol is its source), and by published name."""


def published(protocol: str, backbone: str, shots: int, over: Collection[str]) -> Figures:
    """The published figures of a protocol that hold in a setting.

    Args:
        over: the data sets that the table's averages are over; published averages over others are left out.
    """
    if backbone != BACKBONE:
        return {}
    figures = _read(protocol)
    averaged = {block if protocol == "base-to-new" else column for block, column in figures} - {AVERAGE}
    if protocol != "base-to-new":
        averaged.discard(SOURCE)
    return {
        key: {name: figure for name, figure in named.items() if shots == SHOTS or name == UNLEARNED}
        for key, named in figures.items()
        if AVERAGE not in key or set(over) == averaged
    }


@cache
def _read(protocol: str) -> Figures:
    path = files("gopro").joinpath("assets", "published", f"{protocol.replace('-', '_')}.csv")
    figures: Figures = {}
    for row in csv.DictReader(path.read_text(encoding="utf-8").splitlines()):
        name = row.pop("method")
        block = row.pop("dataset", SOURCE)
        for column, figure in row.items():
            heading = {"base": "Base", "new": "New", "hm": "HM"}.get(column, column)
            figures.setdefault((block, heading), {})[name] = float(figure)
    return figures
