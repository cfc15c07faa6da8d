"""The result of a table as a headline: the best method, its lead, how far seeds support it, and a chart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gopro.benchmark.report.palette import ZEROSHOT, is_zeroshot, ours
from gopro.benchmark.report.tables.mean_std import MeanStd
from gopro.benchmark.report.tables.table import AVERAGE, Block, Table
from gopro.data.few_shot import shots_in_words

CHARTED = 8
"""Methods in the chart beside a headline; the table has them all."""


@dataclass(frozen=True)
class Ranking:
    """A bar chart of methods, best first.

    Attributes:
        left_out: number of methods that are not among these.
        top: end of the axis, which starts at 0, in percent.
    """

    methods: Sequence[tuple[str, MeanStd]]
    left_out: int
    top: int


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

    def claim(self) -> str:
        """Name the best method and its figure; method names are in backticks."""
        (best, top), *others = self.methods
        figure = f"{top.mean:.1f} % {self.measure}"
        if not others:
            return f"`{best}` has {figure} on {self.place}"
        if self._is_level:
            return f"`{best}` and `{others[0][0]}` are level on {self.place}: {figure}"
        return f"`{best}` is best on {self.place}: {figure}"

    def detail(self) -> str:
        """Give the best method's lead over the second and over zero-shot CLIP, and how far seeds support it."""
        (best, top), *others = self.methods
        parts = []
        if best in self.halves:
            parts.append("base {:.1f}, new {:.1f}".format(*self.halves[best]))
        if others and not self._is_level:
            second, next_best = others[0]
            parts.append(f"{top.mean - next_best.mean:.1f} points above `{second}`")
        text = "; ".join(parts)
        sentences = [f"{text[0].upper()}{text[1:]}."] if text else []
        if not others:
            return " ".join([*sentences, "It is the only method that was run."])
        if not self._is_level:
            sentences += _caveat(top.mean - others[0][1].mean, top, others[0][1])
        zeroshot = [] if is_zeroshot(best) or is_zeroshot(others[0][0]) else list(filter(_is_zeroshot, others))
        if zeroshot:
            _, figure = min(zeroshot, key=lambda pair: pair[0] != ZEROSHOT)  # an ensemble only if it is all there is
            sentences.append(f"Zero-shot CLIP has {figure.mean:.1f} %, {top.mean - figure.mean:.1f} points less.")
        if is_zeroshot(best):
            sentences.append("No trained method is better than zero-shot CLIP here.")
        return " ".join(sentences)

    @property
    def _is_level(self) -> bool:
        """True if the two best methods print the same."""
        (_, top), *others = self.methods
        return bool(others) and f"{top.mean:.1f}" == f"{others[0][1].mean:.1f}"

    def ranking(self) -> Ranking:
        """Return the methods for a chart: the best ones, and in any case zero-shot CLIP and GOPro."""
        names = [name for name, _ in self.methods]
        pinned = {*ours(names), *filter(is_zeroshot, names)} if len(names) > CHARTED else set(names)
        rest = [name for name in names if name not in pinned][: max(0, CHARTED - len(pinned))]
        shown = [(name, figure) for name, figure in self.methods if name in pinned or name in rest]
        highest = max(figure.mean + (figure.std or 0) for _, figure in shown)
        return Ranking(shown, len(names) - len(shown), min(100, max(10, 10 * math.ceil(highest / 10))))


def _is_zeroshot(pair: tuple[str, MeanStd]) -> bool:
    return is_zeroshot(pair[0])


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


def _caveat(lead: float, best: MeanStd, second: MeanStd) -> list[str]:
    if best.count < 2 and second.count < 2:
        return ["This is one seed each; another may reverse the order."]
    if lead < math.hypot(best.std or 0, second.std or 0):
        return ["The difference is within the spread over seeds, so there is no clear winner."]
    return []
