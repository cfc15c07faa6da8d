"""`results.jsonl`: one JSON object an evaluation, appended, never rewritten."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from gopro.errors import InputError

Row = dict[str, Any]

KEY = ("protocol", "source", "data", "method", "backbone", "shots", "seed", "classes")
"""What tells evaluations apart: `source` is what the method learned from, `data` what it was tested on, `classes` the
half of `data` that it chose from. A method that learns from no pictures has 0 shots and seed 0."""


class Results:
    """The rows of a results file. A last line that a cut left unfinished is dropped from the file.

    Raises:
        InputError: a line that is no row, other than an unfinished last one.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[Row] = []
        if not path.is_file():
            return
        content = path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                row = json.loads(line)
                for key in (*KEY, "accuracy"):
                    row[key]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}, line {number} is not a result: mend or remove the line") from error
            self.rows.append(row)
        if len(whole) < len(content):
            with path.open("rb+") as file:
                file.truncate(len(whole))

    def find(self, row: Row) -> Row | None:
        """The evaluation that is already there under the same key."""
        return next((have for have in self.rows if all(have[key] == row[key] for key in KEY)), None)

    def add(self, rows: Iterable[Row]) -> None:
        """Appends rows; they are on disk when this returns."""
        rows = list(rows)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            for row in rows:
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
        self.rows += rows
