"""Figures of the GOPro paper (arXiv 2308.11605), to be shown beside ours in the same setting."""

from __future__ import annotations

import csv
from collections.abc import Collection
from functools import cache
from importlib.resources import files

from gopro.benchmark.report.tables.table import AVERAGE
from gopro.data.few_shot import Shots

BACKBONE, SHOTS = "ViT-B-16:openai", 16
"""The setting of all published figures."""

SOURCE = "imagenet"
"""Data set that the paper trains on in the transfer protocols."""

METHODS: dict[str, tuple[str, ...]] = {
    "CLIP": ("zeroshot",),
    "SLIP": ("slip",),
    "CoOp": ("coop",),
    "CoCoOp": ("cocoop",),
    "MaPLe": ("maple",),
    "StyLIP": ("stylip",),
    "GOPro": ("gopro-paper", "gopro-release", "gopro"),
}
"""The paper's name of each method and our names for it; a method with settings, `gopro[con=0]`, has none."""

CAVEATS = {
    "gopro": "not the paper's method: gopro has additions of ours; the method of the published figures is gopro-paper",
}
"""Note on each method that stands beside the published figures of another one."""

UNTRAINED = "CLIP"
"""The published method that learns from no images, so its figures hold for any number of shots."""

FAULTY = {
    ("oxford_flowers", "New", "CoCoOp"): "oxford_flowers, CoCoOp: the published New of 71.15 contradicts its own row; "
    "its HM and the average over data sets imply 71.75",
}
"""Note on each printed figure that cannot be right, by block, column and published name."""

Figures = dict[tuple[str, str], dict[str, float]]
"""Accuracy in percent by (block, column) of a table, then by published name; in transfer, a block is a source."""


def published(protocol: str, backbone: str, shots: Shots, averaged: Collection[str]) -> Figures:
    """Return the published figures of a protocol that are comparable with a setting.

    Args:
        averaged: data sets in the table's averages; a published average over others is left out.
    """
    if backbone != BACKBONE:
        return {}
    figures = _read(protocol)
    published_average = {block if protocol == "base-to-new" else column for block, column in figures} - {AVERAGE}
    if protocol != "base-to-new":
        published_average.discard(SOURCE)
    return {
        key: {name: figure for name, figure in named.items() if shots == SHOTS or name == UNTRAINED}
        for key, named in figures.items()
        if AVERAGE not in key or set(averaged) == published_average
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
