"""From figures by block and method to a table: what is best, what is published, how to read it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gopro.benchmark.report.mean_std import MeanStd
from gopro.benchmark.report.published import FAULTY, METHODS, Figures
from gopro.benchmark.report.rows import PROTOCOLS
from gopro.benchmark.report.table import Block, Cell, Line, Table

_NOTHING = MeanStd.of([])


@dataclass
class TableBuilder:
    """A table in the making.

    Attributes:
        methods: those that were run, in the order of their lines.
        columns: titles of the columns of figures.
        figures: by block and method, one mean_std a column. A transfer protocol's block is its source.
        printed: the published figures of the setting.
        notes: what was left out, and why.
    """

    methods: Sequence[str]
    columns: Sequence[str]
    printed: Figures
    figures: dict[str, dict[str, tuple[MeanStd, ...]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def table(self, protocol: str, setting: str, lead: str, titles: Mapping[str, str] | None = None) -> Table:
        """The table; `titles` are those of the blocks where they are not the blocks themselves."""
        blocks = tuple(Block((titles or {}).get(block, block), self._lines(block)) for block in self.figures)
        cells = [cell for block in blocks for line in block.lines for cell in line.cells]
        faulty = (text for (block, column, name), text in FAULTY.items() if name in self._printed(block, column))
        return Table(
            protocol=protocol,
            title=PROTOCOLS[protocol],
            setting=setting,
            lead=f"{lead} {_how_to_read(cells)}",
            columns=tuple(self.columns),
            blocks=blocks,
            notes=(*self.notes, *faulty),
        )

    def _lines(self, block: str) -> tuple[Line, ...]:
        return (*self._measured(block), *self._published(block))

    def _measured(self, block: str) -> Iterable[Line]:
        figures = self.figures[block]
        winners = [_best(column) for column in zip(*figures.values(), strict=True)]
        for method in self.methods:
            if method not in figures:
                continue
            name = next((name for name, methods in METHODS.items() if method in methods), "")
            cells = (
                Cell(mean_std, _shown(mean_std) == winner, self._printed(block, column).get(name))
                for mean_std, winner, column in zip(figures[method], winners, self.columns, strict=True)
            )
            yield Line(method, tuple(cells))

    def _published(self, block: str) -> Iterable[Line]:
        for name, methods in METHODS.items():
            theirs = [self._printed(block, column).get(name) for column in self.columns]
            if set(methods).isdisjoint(self.methods) and any(figure is not None for figure in theirs):
                yield Line(name, tuple(Cell(_NOTHING, published=figure) for figure in theirs), published=True)

    def _printed(self, block: str, column: str) -> Mapping[str, float]:
        return self.printed.get((block, column), {}) if block in self.figures and column in self.columns else {}


def _shown(mean_std: MeanStd) -> float | None:
    """The mean as far as it is printed: what prints the same ties."""
    return round(mean_std.mean, 2) if mean_std.count else None


def _best(column: Sequence[MeanStd]) -> float:
    """The best mean of several; NaN, which equals nothing, where there is nothing to compare."""
    means = [mean for mean_std in column if (mean := _shown(mean_std)) is not None]
    return max(means) if len(means) > 1 else _NOTHING.mean


def _how_to_read(cells: Sequence[Cell]) -> str:
    text = "Accuracy in percent"
    if counts := {cell.measured.count for cell in cells if cell.measured.std is not None}:
        text += f", mean ± standard deviation over {f'{min(counts)} ' if len(counts) == 1 else ''}seeds"
    if any(cell.published is not None for cell in cells):
        text += ". Published figures are those of the GOPro paper (arXiv 2308.11605)"
    if any(cell.difference is not None for cell in cells):
        text += "; signed numbers are ours minus these"
    return f"{text}."
