"""`results.jsonl`: one JSON object per evaluation, appended and never rewritten."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gopro.data.few_shot import Shots
from gopro.errors import InputError
from gopro.files import append

ResultRow = dict[str, Any]
"""One evaluation: the fields of its `RunKey`, `accuracy` in percent, and further figures."""


@dataclass(frozen=True)
class RunKey:
    """The identity of an evaluation. Two rows with equal keys are the same evaluation.

    A method that learns from no images has 0 shots and seed 0.

    Attributes:
        source: data set that the method was trained on.
        data: data set that it was tested on.
        classes: the half of `data` that it chose from: all, base or new.
    """

    protocol: str
    source: str
    data: str
    method: str
    backbone: str
    shots: Shots
    seed: int
    classes: str


KEY = tuple(field.name for field in fields(RunKey))


class Results:
    """The rows of a `results.jsonl` file, which need not exist yet.

    Args:
        path: the file.

    Raises:
        InputError: the file cannot be read, or one of its lines is not a result.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[ResultRow] = []
        if not path.exists():
            return
        for number, line in enumerate(whole_lines(path), 1):
            try:
                row = json.loads(line)
                _check(row)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f"{path}, line {number} is not a result: correct or remove the line") from error
            self.rows.append(row)

    def find(self, key: RunKey) -> ResultRow | None:
        """Return the row with this key, or None."""
        identity = asdict(key).items()
        return next((row for row in self.rows if all(row[name] == value for name, value in identity)), None)

    def add(self, row: ResultRow) -> None:
        """Append a row. It is on disk when this returns."""
        append_json(self.path, row)
        self.rows.append(row)


def whole_lines(path: Path) -> list[bytes]:
    """Return the complete lines of a file. An incomplete last line is dropped with a warning: its writer was killed.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        *lines, incomplete = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if incomplete:
        warnings.warn(
            f"the last line of {path} is incomplete and is ignored; run the same gopro benchmark again to replace it",
            stacklevel=2,
        )
    return lines


def _check(row: Any) -> None:
    """Raise KeyError or TypeError if a field that every reader relies on is missing or is a list or an object."""
    for key in (*KEY, "accuracy"):
        if isinstance(row[key], list | dict):
            raise TypeError(key)
    if not isinstance(row.get("run"), str | None):
        raise TypeError("run")


def append_json(path: Path, record: ResultRow) -> None:
    """Append an object as one line, in place of an incomplete last line. It is on disk when this returns.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and (content := path.read_bytes()) and not content.endswith(b"\n"):
            os.truncate(path, content.rfind(b"\n") + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    append(path, (json.dumps(record, ensure_ascii=False) + "\n").encode())
