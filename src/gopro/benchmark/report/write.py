"""Tables as files beside the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gopro.benchmark.report.tables.latex import latex
from gopro.benchmark.report.tables.markdown import markdown
from gopro.benchmark.report.tables.protocol_tables import tables
from gopro.files import write_atomically


def write_tables(folder: Path, rows: Iterable[Mapping[str, Any]], against: str | None = None) -> tuple[Path, Path]:
    """Write `tables.md` and `tables.tex` atomically into the folder, which is created if missing.

    Args:
        rows: objects of results.jsonl.
        against: the method to compare the others with.

    Returns:
        The two paths.

    Raises:
        InputError: a row is faulty (see `tables`), or a file cannot be written.
    """
    built = tables(rows, against)
    paths = folder / "tables.md", folder / "tables.tex"
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, (markdown(built), latex(built)), strict=True):
        write_atomically(path, content.encode())
    return paths
