"""Write the tables of results in the documents from the results of the examples, docs/example and docs/example-photos.

python -m tools.benchmark_tables
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gopro.benchmark.report.table import AVERAGE, Cell, Difference, Table
from gopro.benchmark.report.tables import tables
from gopro.runs.results import Results

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE, PHOTOS = ROOT / "docs" / "example", ROOT / "docs" / "example-photos"
BEGIN, END = "<!-- python -m tools.benchmark_tables writes this table -->\n", "<!-- end of the table -->\n"
AGAINST = "gopro"
HEAD = "| | Base | New | HM | Cross-dataset | Domain generalization |\n|---|--:|--:|--:|--:|--:|\n"
SHORT = ("zeroshot", "tip-adapter", "coop", "cocoop", "kgcoop", "maple", "promptsrc", "mmrl", "gopro-paper", AGAINST)
"""The methods of the table in README.md."""


def main_methods(rows: Sequence[dict[str, object]]) -> list[str]:
    """Return the methods of the results without the variants of gopro and those that base-to-new cannot test."""
    tested = dict.fromkeys(str(row["method"]) for row in rows if row["classes"] == "new")
    return [method for method in tested if not method.startswith(f"{AGAINST}[")]


def full_table(rows: Sequence[dict[str, object]]) -> str:
    """Return averages ± standard deviation of all methods, and whether they differ from gopro's."""
    figures = averages(rows)
    lines = [
        f"| {method} | {' | '.join(_with_sign(cell, change) for cell, change in figures[method])} |"
        for method in main_methods(rows)
    ]
    return HEAD + "\n".join(lines) + "\n"


def short_table(rows: Sequence[dict[str, object]]) -> str:
    """Return the averages of the most important methods alone."""
    figures = averages(rows)
    methods = [method for method in SHORT if method in figures]
    lines = [f"| {method} | {' | '.join(_mean(cell) for cell, _ in figures[method])} |" for method in methods]
    return HEAD + "\n".join(lines) + "\n"


def with_table(page: str, table: str) -> str:
    """Return the page with another table between the marks."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.partition(END)[2]}"


def averages(rows: Sequence[dict[str, object]]) -> dict[str, list[tuple[Cell | None, Difference | None]]]:
    """Return the five averages of each method, in the order of `HEAD`, and their differences from gopro's."""
    shown = [row for row in rows if row["method"] in main_methods(rows)]  # the best of these is bold
    by_protocol = {table.protocol: table for table in tables(shown, AGAINST)}
    columns = [("base-to-new", 3), ("cross-dataset", 1), ("domain-generalization", 1)]
    return {
        method: [pair for protocol, count in columns for pair in _cells(by_protocol[protocol], method, count)]
        for method in main_methods(rows)
    }


def _cells(table: Table, method: str, count: int) -> list[tuple[Cell | None, Difference | None]]:
    """Return the last `count` averages of a method in a table."""
    block = next((block for block in table.blocks if block.title == AVERAGE), table.blocks[-1])
    line = next((line for line in block.lines if line.label == method and not line.published), None)
    changes = table.differences.lines.get(method) if table.differences is not None else None
    cells = (None,) * count if line is None else line.cells[-count:]
    return list(zip(cells, ((None,) * count if changes is None else changes[-count:]), strict=True))


def _mean(cell: Cell | None) -> str:
    return "" if cell is None or not cell.measured.count else f"{cell.measured.mean:.2f}"


def _with_sign(cell: Cell | None, change: Difference | None) -> str:
    if cell is None or not cell.measured.count:
        return ""
    text = f"**{cell.measured}**" if cell.best else str(cell.measured)
    return f"{text} {'+' if change.mean > 0 else '−'}" if change is not None and change.excludes_zero else text


TABLES: tuple[tuple[Path, Path, Callable[[Sequence[dict[str, object]]], str]], ...] = (
    (EXAMPLE, ROOT / "docs" / "benchmark.md", full_table),
    (EXAMPLE, ROOT / "README.md", short_table),
    (PHOTOS, ROOT / "docs" / "photo.md", full_table),
)
"""An example, a page, and the table of the one that stands on the other."""


def main() -> None:
    for example, page, table in TABLES:
        rows = Results(example / "results.jsonl").rows
        page.write_text(with_table(page.read_text(encoding="utf-8"), table(rows)), encoding="utf-8")


if __name__ == "__main__":
    main()
