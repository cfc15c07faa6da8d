"""What a table says in one sentence: who is best, by how much, and whether the seeds bear it out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gopro.benchmark.report.mean_std import MeanStd
from gopro.benchmark.report.palette import is_zeroshot
from gopro.benchmark.report.table import AVERAGE, Block, Table


@dataclass(frozen=True)
class Headline:
    """The one column of a table that ranks the methods: the last, of the averages where there are any.

    Attributes:
        figure: what is ranked: `HM, average of 11 data sets`.
        methods: what was run, best first.
    """

    figure: str
    methods: Sequence[tuple[str, MeanStd]]

    def sentence(self) -> str:
        """Best, second, zero-shot CLIP, and how far the seeds carry it. Method names stand between backticks."""
        (best, top), *others = self.methods
        if not others:
            return f"{self.figure}: `{best}` {top}; nothing else was run to compare it with."
        (second, next_best), *rest = others
        lead = top.mean - next_best.mean
        if round(top.mean, 2) == round(next_best.mean, 2):
            text = f"{self.figure}: `{best}` and `{second}` are level at {top} and {next_best}"
        else:
            text = f"{self.figure}: `{best}` is best with {top}, {lead:.2f} above `{second}` ({next_best})"
        text += _trust(lead, top, next_best)
        unsaid = [] if is_zeroshot(best) or is_zeroshot(second) else [pair for pair in rest if is_zeroshot(pair[0])]
        if unsaid:
            _, mean_std = min(unsaid, key=lambda pair: pair[0] != "zeroshot")  # an ensemble only where that was not run
            text += f" Zero-shot CLIP has {mean_std}, {top.mean - mean_std.mean:.2f} less."
        if is_zeroshot(best):
            text += " Nothing that learned does better than zero-shot CLIP here."
        return text


def headlines(table: Table) -> list[Headline]:
    """One a table; where its blocks are not averaged, one a block. Methods without a figure are not ranked."""
    averages = [block for block in table.blocks if block.title == AVERAGE]
    found = []
    for block in averages or table.blocks:
        ranked = [(line.label, line.cells[-1].measured) for line in block.lines if not line.published]
        ranked = sorted(
            ((method, mean_std) for method, mean_std in ranked if mean_std.count), key=lambda pair: -pair[1].mean
        )
        if ranked:
            found.append(Headline(_figure(table, block), ranked))
    return found


def _figure(table: Table, block: Block) -> str:
    column = table.columns[-1]
    if column == AVERAGE:
        source = f" of {block.title}" if block.title else ""
        return f"Average of the targets{source}"
    name = "Accuracy" if table.protocol == "few-shot" else column
    if table.protocol == "few-shot" and column != "0":
        name = f"Accuracy with {column} {'shot' if column == '1' else 'shots'}"
    if block.title == AVERAGE:
        return f"{name}, average of {len(table.blocks) - 1} data sets"
    return f"{name}, {block.title}" if block.title else name


def _trust(lead: float, best: MeanStd, second: MeanStd) -> str:
    if best.count < 2 and second.count < 2:
        return ". One seed each: another may turn it round."
    noise = math.hypot(best.std or 0, second.std or 0)
    if lead < noise:
        return ". That is within the mean_std over seeds: no clear winner."
    return "."
