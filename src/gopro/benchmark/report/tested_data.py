"""What was tested on: the name, classes and number of test images of each data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gopro.benchmark.report.experiment import Experiment
from gopro.benchmark.report.rows import TRANSFER
from gopro.benchmark.report.tables.table import AVERAGE, Table
from gopro.runs.results import ResultRow


@dataclass(frozen=True)
class DataSize:
    """A data set that a table's methods were tested on.

    Attributes:
        classes, images: number of classes and test images of each half of the classes, `all`, `base` or `new`; None if
            no result records it, as in those of earlier versions.
    """

    name: str
    classes: Mapping[str, int | None]
    images: Mapping[str, int | None]

    def size(self) -> str:
        """Return `30 classes (15 base, 15 new), 450 test images`, or as much of it as is known."""
        parts = []
        if (classes := _total(self.classes)) is not None:
            halves = [f"{count:,} {half}" for half, count in self.classes.items() if half != "all"]
            parts.append(_count(classes, "class", "classes") + (f" ({', '.join(halves)})" if len(halves) > 1 else ""))
        if (images := _total(self.images)) is not None:
            parts.append(_count(images, "test image", "test images"))
        return ", ".join(parts)


def _total(counts: Mapping[str, int | None]) -> int | None:
    known = [count for count in counts.values() if count is not None]
    return sum(known) if len(known) == len(counts) else None


def _count(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def tested_data(experiment: Experiment, table: Table) -> list[DataSize]:
    """Return the data sets of a table in its order."""
    names = table.columns if table.protocol in TRANSFER else [block.title for block in table.blocks]
    rows = [row for row in experiment.rows if row["protocol"] == table.protocol]
    return [_tested(experiment, name, rows) for name in names if name != AVERAGE]


def _tested(experiment: Experiment, data: str, rows: Iterable[ResultRow]) -> DataSize:
    own = [row for row in rows if row["data"] == data]
    halves = dict.fromkeys(row["classes"] for row in own)
    classes = {half: _first(experiment.class_count(row) for row in own if row["classes"] == half) for half in halves}
    images = {half: _first(row.get("n") for row in own if row["classes"] == half) for half in halves}
    return DataSize(data, classes, images)


def _first(values: Iterable[int | None]) -> int | None:
    return next((value for value in values if value is not None), None)
