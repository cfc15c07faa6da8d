"""The lines of a table ordered by result."""

from __future__ import annotations

from dataclasses import replace

from gopro.benchmark.report.tables.table import Block, Differences, Line, Table


def ranked(table: Table) -> Table:
    """Order the lines of each block by the last column, best first; published ones stay below those that were run.

    The last column is the one that the headline ranks: the harmonic mean, the average, or the most shots.
    """
    differences = None if table.differences is None else _ranked_differences(table.differences)
    return replace(table, blocks=tuple(map(_ranked_block, table.blocks)), differences=differences)


def _ranked_block(block: Block) -> Block:
    return replace(block, lines=tuple(sorted(block.lines, key=_place)))


def _place(line: Line) -> tuple[bool, bool, float]:
    """Return a sort key; a line without a figure in the last column comes after the others of its kind."""
    cell = line.cells[-1]
    figure = cell.published if line.published else cell.measured.mean if cell.measured.count else None
    return line.published, figure is None, -(figure or 0)


def _ranked_differences(differences: Differences) -> Differences:
    def place(method: str) -> tuple[bool, float]:
        last = differences.lines[method][-1]
        return last is None, 0 if last is None else -last.mean

    lines = {method: differences.lines[method] for method in sorted(differences.lines, key=place)}
    return replace(differences, lines=lines)
