"""`results.jsonl`: one JSON object an evaluation, appended, never rewritten."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from gopro.errors import InputError

Row = dict[str, Any]


@dataclass(frozen=True)
class Key:
    """What tells evaluations apart.

    A method that learns from no pictures has 0 shots and seed 0.

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

    def find(self, key: Key) -> Row | None:
        """The evaluation that is already there under this key."""
        wanted = asdict(key)
        return next((row for row in self.rows if all(row[name] == value for name, value in wanted.items())), None)

    def add(self, row: Row) -> None:
        """Appends a row; it is on disk when this returns."""
        append_json(self.path, row)
        self.rows.append(row)


def append_json(path: Path, record: Row) -> None:
    """Appends an object as one line; it is on disk when this returns.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write((json.dumps(record, ensure_ascii=False) + "\n").encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
