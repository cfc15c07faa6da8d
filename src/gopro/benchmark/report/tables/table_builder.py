"""Builds a table from the figures of each block and method: marks the best, adds published figures, explains both."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gopro.benchmark.report.rows import PROTOCOL_TITLES
from gopro.benchmark.report.tables.mean_std import MeanStd
from gopro.benchmark.report.tables.published import CAVEATS, FAULTY, METHODS, Figures
from gopro.benchmark.report.tables.table import Block, Cell, Line, Table

_NO_RESULT = MeanStd.of([])


@dataclass
class TableBuilder:
    """A table under construction.

    Attributes:
        methods: the methods that were run, in the order of their lines.
        columns: titles of the columns of figures.
        published: the published figures of the setting.
        figures: by block and method, one figure per column. In a transfer protocol a block is a source.
        notes: what was left out, and why.
    """

    methods: Sequence[str]
    columns: Sequence[str]
    published: Figures
    figures: dict[str, dict[str, tuple[MeanStd, ...]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def build(self, protocol: str, setting: str, lead: str, titles: Mapping[str, str] | None = None) -> Table:
        """Return the table; `titles` replaces the titles of blocks."""
        blocks = tuple(Block((titles or {}).get(block, block), self._lines(block)) for block in self.figures)
        cells = [cell for block in blocks for line in block.lines for cell in line.cells]
        faulty = (note for (block, column, name), note in FAULTY.items() if name in self._published(block, column))
        return Table(
            protocol=protocol,
            title=PROTOCOL_TITLES[protocol],
            setting=setting,
            lead=f"{lead} {_how_to_read(cells)}",
            columns=tuple(self.columns),
            blocks=blocks,
            notes=(*self.notes, *faulty),
        )

    def _lines(self, block: str) -> tuple[Line, ...]:
        return (*self._measured_lines(block), *self._published_lines(block))

    def _measured_lines(self, block: str) -> Iterable[Line]:
        figures = self.figures[block]
        best = [_best(column) for column in zip(*figures.values(), strict=True)]
        for method in self.methods:
            if method not in figures:
                continue
            name = next((name for name, methods in METHODS.items() if method in methods), "")
            cells = tuple(
                Cell(figure, _printed(figure) == best_here, self._published(block, column).get(name))
                for figure, best_here, column in zip(figures[method], best, self.columns, strict=True)
            )
            compared = any(cell.published is not None for cell in cells)
            yield Line(method, cells, caveat=CAVEATS.get(method, "") if compared else "")

    def _published_lines(self, block: str) -> Iterable[Line]:
        for name, methods in METHODS.items():
            figures = [self._published(block, column).get(name) for column in self.columns]
            if set(methods).isdisjoint(self.methods) and any(figure is not None for figure in figures):
                yield Line(name, tuple(Cell(_NO_RESULT, published=figure) for figure in figures), published=True)

    def _published(self, block: str, column: str) -> Mapping[str, float]:
        return self.published.get((block, column), {}) if block in self.figures and column in self.columns else {}


def _printed(figure: MeanStd) -> float | None:
    """Return the mean as it is printed, so that methods that print the same tie."""
    return round(figure.mean, 2) if figure.count else None


def _best(column: Sequence[MeanStd]) -> float:
    """Return the best of several printed means, or NaN, which equals nothing, for fewer than two."""
    means = [mean for figure in column if (mean := _printed(figure)) is not None]
    return max(means) if len(means) > 1 else _NO_RESULT.mean


def _how_to_read(cells: Sequence[Cell]) -> str:
    text = "Accuracy in percent"
    if counts := {cell.measured.count for cell in cells if cell.measured.std is not None}:
        text += f", mean ± standard deviation over {f'{min(counts)} ' if len(counts) == 1 else ''}seeds"
    if any(cell.published is not None for cell in cells):
        text += ". Published figures are those of the GOPro paper (arXiv 2308.11605)"
    if any(cell.difference is not None for cell in cells):
        text += "; signed numbers are ours minus the paper's"
    return f"{text}."
