"""The data of a table of results, the same for every protocol: blocks of lines of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gopro.benchmark.report.tables.mean_std import MeanStd

AVERAGE = "average"
"""Title of the block, or of the column, that is averaged over data sets."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One accuracy of one method.

    Attributes:
        measured: over seeds; its count is 0 if the method has no result here.
        best: the method is the best of those run in this column of the block. Methods that print the same are all best;
            if only one method was run, none is.
        published: the paper's figure for this method in the same setting, in percent, if it has one.
    """

    measured: MeanStd
    best: bool = False
    published: float | None = None

    @property
    def difference(self) -> float | None:
        """Measured minus published, in percentage points; None if one of the two is missing."""
        return self.measured.mean - self.published if self.measured.count and self.published is not None else None


@dataclass(frozen=True, slots=True)
class Line:
    """One method in a block.

    Attributes:
        label: the method's name with its settings (`gopro[con=0]`), or the paper's name for it (`StyLIP`).
        cells: one per column of the table.
        published: the method was not run, so only `published` of its cells is filled.
        caveat: how the method differs from that of the published figures; "" if it does not, or if there are none.
    """

    label: str
    cells: tuple[Cell, ...]
    published: bool = False
    caveat: str = ""


@dataclass(frozen=True, slots=True)
class Block:
    """Lines that are compared with one another.

    Attributes:
        title: a data set, `AVERAGE`, or "" if the table has a single block.
        lines: methods that were run, those that learn from no images first, then published ones.
    """

    title: str
    lines: tuple[Line, ...]

    @property
    def has_published(self) -> bool:
        """True if a cell holds a published figure."""
        return any(cell.published is not None for line in self.lines for cell in line.cells)


@dataclass(frozen=True, slots=True)
class Difference:
    """The average of one method minus that of another, in percentage points.

    Attributes:
        interval: its lower and upper end; None with one seed.
        datasets: number of data sets in the average.
    """

    mean: float
    interval: tuple[float, float] | None
    datasets: int

    @property
    def excludes_zero(self) -> bool:
        """True if the interval, as printed with two decimals, does not contain 0."""
        return self.interval is not None and (round(self.interval[0], 2) > 0 or round(self.interval[1], 2) < 0)


@dataclass(frozen=True, slots=True)
class Differences:
    """The averages of each method in a table minus those of one reference method.

    Attributes:
        against: the reference method.
        lead: how to read the figures.
        columns: column titles.
        lines: by method, one difference per column; None if the two methods have no result in common.
        notes: how the intervals were computed, and what was left out and why.
    """

    against: str
    lead: str
    columns: tuple[str, ...]
    lines: Mapping[str, tuple[Difference | None, ...]]
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Heading of the table."""
        return f"Difference from {self.against}"


@dataclass(frozen=True, slots=True)
class Table:
    """Results of one protocol in one setting.

    Attributes:
        protocol: as in results.jsonl: `base-to-new`, ...
        title: the protocol's name in prose: `Base-to-new`.
        setting: what all figures have in common: `ViT-B-16:openai, 16 shots`.
        lead: a sentence or two on the training and test data and how to read the figures.
        columns: titles of the columns of figures.
        blocks: in order of first appearance; the `AVERAGE`, if there is one, is last.
        notes: what was left out and why, and errors in published figures.
        differences: of its averages to those of a reference method, if one was chosen and run.
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
    def caveats(self) -> tuple[str, ...]:
        """The caveats of the lines, each once."""
        return tuple(dict.fromkeys(line.caveat for block in self.blocks for line in block.lines if line.caveat))

    @property
    def heads(self) -> tuple[str, ...]:
        """Return the titles of the columns before the figures.

        These are `Method`, after `Data` or `Source` if the blocks have titles. A block is a data set; for the protocols
        `cross-dataset` and `domain-generalization` it is the source that was trained on.
        """
        if not any(block.title for block in self.blocks):
            return ("Method",)
        return ("Source" if self.protocol in ("cross-dataset", "domain-generalization") else "Data", "Method")
