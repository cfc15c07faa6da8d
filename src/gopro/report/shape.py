"""What every table of results consists of, whatever its protocol: blocks of lines of cells."""

from __future__ import annotations

from dataclasses import dataclass

from gopro.report.spread import Spread

AVERAGE = "average"
"""The title of the block, or of the column, that is averaged over data sets."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of one method.

    Attributes:
        spread: what was measured; its count is 0 where nothing was.
        best: none of the methods that were run is better in this column of the block. What prints the same ties;
            where only one method was run nothing is best.
        published: what the paper prints for this method in the same setting, in percent; None where it prints nothing.
    """

    spread: Spread
    best: bool = False
    published: float | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus published, in percentage points; None where one of the two is missing."""
        return self.spread.mean - self.published if self.spread.count and self.published is not None else None


@dataclass(frozen=True, slots=True)
class Line:
    """One method in a block.

    Attributes:
        label: the method as it was asked for (`gopro[con=0]`), or the paper's name for it (`StyLIP`) where published.
        cells: one a column of the table.
        published: the method was not run: the cells' `published` are to be shown, their `spread` is empty.
    """

    label: str
    cells: tuple[Cell, ...]
    published: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that are compared with one another.

    Attributes:
        title: a data set, `AVERAGE`, or "" where the table has but one block.
        lines: methods that were run, those that learn from no pictures first, then published ones.
    """

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """What one protocol showed in one setting.

    Attributes:
        protocol: as in the results' rows: `base-to-new`, ...
        title: the protocol's name for people: `Base to new`.
        setting: what all figures have in common: `ViT-B-16:openai, 16 shots`.
        lead: a sentence or two on what was trained on and tested on, and how to read the figures.
        columns: titles of the columns of figures.
        blocks: in order of first appearance; that of the `AVERAGE`, if there is one, is last.
        notes: one sentence each: what was left out and why, what is peculiar about a published figure.
    """

    protocol: str
    title: str
    setting: str
    lead: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]

    @property
    def heads(self) -> tuple[str, ...]:
        """Titles of the columns in front of the figures: that of the blocks' titles, where they have any, and `Method`.

        A block stands for a data set, or for the source that was trained on in `cross-dataset` and
        `domain-generalization`.
        """
        if not any(block.title for block in self.blocks):
            return ("Method",)
        return ("Source" if self.protocol in ("cross-dataset", "domain-generalization") else "Data", "Method")
