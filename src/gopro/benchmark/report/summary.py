"""The result of a table in one sentence: the best method, its lead, and how far seeds support it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gopro.benchmark.report.mean_std import MeanStd
from gopro.benchmark.report.palette import is_zeroshot
from gopro.benchmark.report.table import AVERAGE, Block, Table
from gopro.data.few_shot import shots_in_words


@dataclass(frozen=True)
class Headline:
    """A ranking of the methods by the last column of a table, in its block of averages if it has one.

    Attributes:
        measure: what is ranked: `harmonic mean`, `accuracy with 16 shots`.
        place: the data set, or `average over 11 data sets`.
        methods: methods that were run, best first.
        halves: accuracy on the base and new classes of each method, in base-to-new.
    """

    measure: str
    place: str
    methods: Sequence[tuple[str, MeanStd]]
    halves: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """Title of a column that holds these figures."""
        return f"{self.measure[0].upper()}{self.measure[1:]}, {self.place}"

    def sentence(self) -> str:
        """Name the best method, its lead over the second and over zero-shot CLIP; method names are in backticks."""
        (best, top), *others = self.methods
        if not others:
            return f"`{best}` has {self._figure(best, top)} on {self.place}. It is the only method that was run."
        (second, next_best), *rest = others
        lead = top.mean - next_best.mean
        if f"{top.mean:.1f}" == f"{next_best.mean:.1f}":
            text = f"`{best}` and `{second}` are level on {self.place}, at {self._figure(best, top)}."
        else:
            figure = self._figure(best, top)
            text = f"`{best}` is best on {self.place}: {figure}, {lead:.1f} points above `{second}`."
            text += _caveat(lead, top, next_best)
        zeroshot = [] if is_zeroshot(best) or is_zeroshot(second) else [pair for pair in rest if is_zeroshot(pair[0])]
        if zeroshot:
            _, figure = min(zeroshot, key=lambda pair: pair[0] != "zeroshot")  # an ensemble only if it is all there is
            text += f" Zero-shot CLIP has {figure.mean:.1f} %, {top.mean - figure.mean:.1f} points less."
        if is_zeroshot(best):
            text += " No trained method is better than zero-shot CLIP here."
        return text

    def _figure(self, method: str, figure: MeanStd) -> str:
        halves = "(base {:.1f}, new {:.1f})".format(*self.halves[method]) if method in self.halves else ""
        return f"{figure.mean:.1f} % {self.measure} {halves}".rstrip()


def headlines(table: Table) -> list[Headline]:
    """Rank the methods that have a figure once per table, or once per block if it has no averages."""
    averages = [block for block in table.blocks if block.title == AVERAGE]
    ranked = []
    for block in averages or table.blocks:
        lines = [line for line in block.lines if not line.published and line.cells[-1].measured.count]
        lines.sort(key=lambda line: -line.cells[-1].measured.mean)
        if lines:
            methods = [(line.label, line.cells[-1].measured) for line in lines]
            halves = {}
            if table.protocol == "base-to-new":
                halves = {line.label: (line.cells[0].measured.mean, line.cells[1].measured.mean) for line in lines}
            ranked.append(Headline(_measure(table), _place(table, block), methods, halves))
    return ranked


def _measure(table: Table) -> str:
    column = table.columns[-1]
    if table.protocol == "few-shot" and column != "0":
        return f"accuracy with {shots_in_words('all' if column == 'all' else int(column))}"
    return "harmonic mean" if table.protocol == "base-to-new" else "accuracy"


def _place(table: Table, block: Block) -> str:
    if block.title == AVERAGE:
        return f"average over {len(table.blocks) - 1} data sets"
    if table.protocol in ("base-to-new", "few-shot"):
        return block.title
    column = table.columns[-1]
    source = f", trained on {block.title}" if block.title else ""
    return f"{'average over the targets' if column == AVERAGE else column}{source}"


def _caveat(lead: float, best: MeanStd, second: MeanStd) -> str:
    if best.count < 2 and second.count < 2:
        return " This is one seed each; another may reverse the order."
    if lead < math.hypot(best.std or 0, second.std or 0):
        return " The difference is within the spread over seeds, so there is no clear winner."
    return ""
