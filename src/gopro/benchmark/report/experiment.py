"""What a results folder holds, as the report's sections ask for it; what is missing becomes a note."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gopro.benchmark.predictions import Predictions
from gopro.benchmark.report.palette import is_zeroshot
from gopro.benchmark.report.rows import PROTOCOLS, TRANSFER
from gopro.errors import InputError
from gopro.files import slug
from gopro.runs.results import ResultRow, Results, whole_lines
from gopro.runs.run import read_config

_RUN = ("protocol", "source", "backbone")


@dataclass(frozen=True)
class Group:
    """Evaluations that compare: one protocol on one backbone, in a transfer protocol from one source.

    Attributes:
        shots: the most there are; the group's rows have these, or learn from none.
    """

    protocol: str
    source: str | None
    backbone: str
    shots: int
    rows: tuple[ResultRow, ...]

    @property
    def title(self) -> str:
        """Protocol, source, backbone and shots in words."""
        source = f"from {self.source}, " if self.source else ""
        shots = "1 shot" if self.shots == 1 else f"{self.shots} shots" if self.shots else "no training images"
        return f"{PROTOCOLS[self.protocol]}: {source}{self.backbone}, {shots}"

    @property
    def slug(self) -> str:
        """The same as the stem of a file's name."""
        parts = [self.protocol, *([self.source] if self.source else []), self.backbone, f"{self.shots}shots"]
        return slug("-".join(parts))

    @property
    def methods(self) -> list[str]:
        """Zero-shot CLIP first, the others in order of appearance."""
        return sorted(dict.fromkeys(row["method"] for row in self.rows), key=lambda method: not is_zeroshot(method))

    @property
    def zeroshot(self) -> str | None:
        """Zero-shot CLIP, under the settings that come first."""
        return next(filter(is_zeroshot, self.methods), None)

    def tests(self) -> dict[tuple[str, str], dict[str, list[ResultRow]]]:
        """The rows by what was tested on, (data, classes), and method; what several methods were tested on."""
        tests: dict[tuple[str, str], dict[str, list[ResultRow]]] = {}
        for row in self.rows:
            tests.setdefault((row["data"], row["classes"]), {}).setdefault(row["method"], []).append(row)
        return {key: methods for key, methods in tests.items() if len(methods) > 1}


def groups(rows: Iterable[ResultRow]) -> list[Group]:
    """The rows as groups, in the order of PROTOCOLS."""
    parts: dict[tuple[str, str | None, str], list[ResultRow]] = {}
    for row in rows:
        source = row["source"] if row["protocol"] in TRANSFER else None
        parts.setdefault((row["protocol"], source, row["backbone"]), []).append(row)
    found = []
    for (protocol, source, backbone), own in parts.items():
        shots = max(row["shots"] for row in own)
        kept = tuple(row for row in own if row["shots"] in (0, shots))
        found.append(Group(protocol, source, backbone, shots, kept))
    order = list(PROTOCOLS)
    return sorted(found, key=lambda group: order.index(group.protocol))


class Experiment:
    """A results folder.

    Attributes:
        rows: all results.
        failures: failed runs that have no result since, the latest of each.
        history: the calls that made the folder.
        notes: what the report's makers found missing or unlike, a sentence each.

    Raises:
        InputError: the folder has no results, or one of its JSON files is broken.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        path = folder / "results.jsonl"
        if not path.is_file():
            raise InputError(f"{folder} has no results.jsonl: give the --output folder of gopro benchmark")
        self.rows: list[ResultRow] = Results(path).rows
        self.history = _lines(folder / "history.jsonl", ("when", "command", "machine", "versions"))
        failed = _lines(folder / "failures.jsonl", ("run", "method", "shots", "seed", "error", *_RUN))
        self.failures = list({(f["protocol"], f["run"]): f for f in failed if not self._succeeded(f)}.values())
        self.notes: list[str] = []
        self._predictions: dict[Path, Predictions | None] = {}

    def _succeeded(self, failure: ResultRow) -> bool:
        """Whether the run has by now as many results as others like it."""
        like = Counter(
            row.get("run")
            for row in self.rows
            if all(row[name] == failure[name] for name in _RUN) and bool(row["shots"]) == bool(failure["shots"])
        )
        return 0 < like[failure["run"]] == max(like.values())

    def predictions(self, row: ResultRow) -> Predictions | None:
        """What an evaluation says of each test image, None where its file is not there."""
        run = row.get("run")
        if run is None:
            return None
        path = self.folder / "runs" / Path(run).name / f"test-{slug(row['data'])}-{row['classes']}.safetensors"
        if path not in self._predictions:
            self._predictions[path] = Predictions.load(path) if path.is_file() else None
        return self._predictions[path]

    def root(self, row: ResultRow) -> Path | None:
        """Where the benchmarks' folders were when the row's run was made."""
        try:
            return read_config(self.folder / "runs" / Path(row["run"]).name)["config"].root
        except InputError:
            return None

    def log(self, run: str) -> list[dict[str, float]]:
        """A run's log, a step each; empty where there is none. Columns without a value at a step are left out.

        Raises:
            InputError: a value that is no number.
        """
        path = self.folder / "runs" / Path(run).name / "log.csv"
        if not path.is_file():
            return []
        with path.open(encoding="utf-8", newline="") as file:
            try:
                return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
            except (ValueError, TypeError) as error:
                raise InputError(f"{path} is not the log of a run ({error}): remove it") from error

    def note_missing(self) -> None:
        """Adds a note on the evaluations whose predictions are not there."""
        asked = list(self._predictions.values())
        if missing := asked.count(None):
            self.notes.append(
                f"{missing} of {len(asked)} files of predictions are not there; gains, confusions and images are "
                "those of the others."
            )


def _lines(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines, which may be absent."""
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(whole_lines(path), 1):
        try:
            value = json.loads(line)
            for key in keys:
                value[key]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}, line {number} is not an entry: mend or remove the line") from error
        found.append(value)
    return found
