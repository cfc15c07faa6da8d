"""`results.jsonl`: one JSON object an evaluation, appended, never rewritten."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gopro.errors import InputError
from gopro.files import append

Row = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """What tells evaluations apart.

    A method that learns from no images has 0 shots and seed 0.

    Attributes:
        source: what the method learned from, `data`: what it was tested on.
        classes: the half of `data` that it chose from: all, base or new.
    """

    protocol: str
    source: str
    data: str
    method: str
    backbone: str
    shots: int
    seed: int
    classes: str


KEY = tuple(field.name for field in fields(Key))


class Results:
    """The rows of a results file.

    Raises:
        InputError: the file cannot be read, or a line is no row.
    """

    def __init__(self, path: Path):
        self.path = path
        self.rows: list[Row] = []
        if not path.exists():
            return
        for number, line in enumerate(whole_lines(path), 1):
            try:
                row = json.loads(line)
                _check(row)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(f"{path}, line {number} is not a result: mend or remove the line") from error
            self.rows.append(row)

    def find(self, key: Key) -> Row | None:
        """The evaluation that is already there under this key."""
        wanted = asdict(key)
        return next((row for row in self.rows if all(row[name] == value for name, value in wanted.items())), None)

    def add(self, row: Row) -> None:
        """Appends a row; it is on disk when this returns."""
        append_json(self.path, row)
        self.rows.append(row)


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file. A last one without its end is warned of and left out: whoever wrote it was cut off.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        *lines, tail = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    if tail:
        warnings.warn(
            f"the last line of {path} was cut off in the middle and does not count; the same gopro benchmark makes it "
            "again",
            stacklevel=2,
        )
    return lines


def _check(row: Any) -> None:
    """Raises KeyError or TypeError: what every reader counts on is missing, or of a kind that names nothing."""
    for key in (*KEY, "accuracy"):
        if isinstance(row[key], list | dict):
            raise TypeError(key)
    if not isinstance(row.get("run"), str | None):
        raise TypeError("run")


def append_json(path: Path, record: Row) -> None:
    """Appends an object as one line, in the place of one that a cut left unfinished; it is on disk when this returns.

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
