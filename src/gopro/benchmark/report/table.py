"""What every table of results consists of, whatever its protocol: blocks of lines of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gopro.benchmark.report.mean_std import MeanStd

AVERAGE = "average"
"""The title of the block, or of the column, that is averaged over data sets."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure of one method.

    Attributes:
        measured: what was measured; its count is 0 where nothing was.
        best: none of the methods that were run is better in this column of the block. What prints the same ties;
            where only one method was run nothing is best.
        published: what the paper prints for this method in the same setting, in percent; None where it prints nothing.
    """

    measured: MeanStd
    best: bool = False
    published: float | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus published, in percentage points; None where one of the two is missing."""
        return self.measured.mean - self.published if self.measured.count and self.published is not None else None


@dataclass(frozen=True, slots=True)
class Line:
    """One method in a block.

    Attributes:
        label: the method as it was asked for (`gopro[con=0]`), or the paper's name for it (`StyLIP`) where published.
        cells: one a column of the table.
        published: the method was not run: the cells' `published` are to be shown, their `measured` is empty.
    """

    label: str
    cells: tuple[Cell, ...]
    published: bool = False


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that are compared with one another.

    Attributes:
        title: a data set, `AVERAGE`, or "" where the table has but one block.
        lines: methods that were run, those that learn from no images first, then published ones.
    """

    title: str
    lines: tuple[Line, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """What a method reached minus what another did, in percentage points.

    Attributes:
        interval: its two ends; None where one seed allows of none.
        datasets: how many it is an average over.
    """

    mean: float
    interval: tuple[float, float] | None
    datasets: int

    @property
    def clear(self) -> bool:
        """Whether the interval, as it is printed, does not contain 0."""
        return self.interval is not None and (round(self.interval[0], 2) > 0 or round(self.interval[1], 2) < 0)


@dataclass(frozen=True, slots=True)
class Differences:
    """What a table averages, of each method minus that of one method.

    Attributes:
        against: that one method.
        lead: how to read the figures.
        columns: titles of the columns.
        lines: by method, one a column; None where the two methods have nothing in common.
        notes: one sentence each: how the intervals were made, what was left out and why.
    """

    against: str
    lead: str
    columns: tuple[str, ...]
    lines: Mapping[str, tuple[Difference | None, ...]]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """For people."""
        return f"Difference to {self.against}"


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
        differences: of its averages to those of one method, where one was chosen and run.
    """

    protocol: str
    title: str
    setting: str
    lead: str
    columns: tuple[str, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    differences: Differences | None = None

    @property
    def heads(self) -> tuple[str, ...]:
        """Titles of the columns in front of the figures: that of the blocks' titles, where they have any, and `Method`.

        A block stands for a data set, or for the source that was trained on in `cross-dataset` and
        `domain-generalization`.
        """
        if not any(block.title for block in self.blocks):
            return ("Method",)
        return ("Source" if self.protocol in ("cross-dataset", "domain-generalization") else "Data", "Method")
