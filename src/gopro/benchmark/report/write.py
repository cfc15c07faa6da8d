"""The tables as files beside the results that they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gopro.benchmark.report.latex import latex
from gopro.benchmark.report.markdown import markdown
from gopro.benchmark.report.tables import tables
from gopro.files import write_atomically


def write_tables(folder: Path, rows: Iterable[Mapping[str, Any]], against: str | None = None) -> tuple[Path, Path]:
    """Writes `tables.md` and `tables.tex` into the folder, which is made where it is absent; each appears whole.

    Args:
        rows: objects of results.jsonl.
        against: the method that the others are compared with.

    Returns: the two paths.

    Raises:
        InputError: a faulty row (see `tables`), or a file that cannot be written.
    """
    made = tables(rows, against)
    paths = folder / "tables.md", folder / "tables.tex"
    folder.mkdir(parents=True, exist_ok=True)
    for path, content in zip(paths, (markdown(made), latex(made)), strict=True):
        write_atomically(path, content.encode())
    return paths
