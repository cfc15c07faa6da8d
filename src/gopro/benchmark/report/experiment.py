"""The contents of a results folder; what is missing becomes a note in the report."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gopro.benchmark.predictions import Predictions
from gopro.benchmark.report.join import join_results, key_of
from gopro.benchmark.report.palette import is_zeroshot
from gopro.benchmark.report.rows import PROTOCOL_TITLES, TRANSFER
from gopro.data.few_shot import Shots, by_number, shots_in_words
from gopro.errors import InputError
from gopro.files import slug
from gopro.runs.results import ResultRow, whole_lines
from gopro.runs.run import read_config

_SETTING = ("protocol", "source", "backbone")


@dataclass(frozen=True)
class Comparison:
    """Evaluations that can be compared: one protocol on one backbone, in a transfer protocol from one source.

    Attributes:
        shots: the largest number of shots; the rows have this number, or 0.
    """

    protocol: str
    source: str | None
    backbone: str
    shots: Shots
    rows: tuple[ResultRow, ...]

    @property
    def title(self) -> str:
        """Protocol, source, backbone and shots in prose."""
        source = f"from {self.source}, " if self.source else ""
        return f"{PROTOCOL_TITLES[self.protocol]}: {source}{self.backbone}, {shots_in_words(self.shots)}"

    @property
    def slug(self) -> str:
        """Protocol, source, backbone and shots as part of a file's name."""
        parts = [self.protocol, *([self.source] if self.source else []), self.backbone, f"{self.shots}shots"]
        return slug("-".join(parts))

    @property
    def methods(self) -> list[str]:
        """Zero-shot CLIP first, the others in order of appearance."""
        return sorted(dict.fromkeys(row["method"] for row in self.rows), key=lambda method: not is_zeroshot(method))

    @property
    def zeroshot(self) -> str | None:
        """Zero-shot CLIP, with the settings that appear first."""
        return next(filter(is_zeroshot, self.methods), None)

    def tests(self) -> dict[tuple[str, str], dict[str, list[ResultRow]]]:
        """Return the rows by (data, classes) and method, of tests that several methods have."""
        tests: dict[tuple[str, str], dict[str, list[ResultRow]]] = {}
        for row in self.rows:
            tests.setdefault((row["data"], row["classes"]), {}).setdefault(row["method"], []).append(row)
        return {key: methods for key, methods in tests.items() if len(methods) > 1}


def comparisons(rows: Iterable[ResultRow]) -> list[Comparison]:
    """Group the rows into comparisons, in the order of `PROTOCOL_TITLES`."""
    groups: dict[tuple[str, str | None, str], list[ResultRow]] = {}
    for row in rows:
        source = row["source"] if row["protocol"] in TRANSFER else None
        groups.setdefault((row["protocol"], source, row["backbone"]), []).append(row)
    unsorted = []
    for (protocol, source, backbone), own in groups.items():
        shots = max((row["shots"] for row in own), key=by_number)
        most_shots = tuple(row for row in own if row["shots"] in (0, shots))
        unsorted.append(Comparison(protocol, source, backbone, shots, most_shots))
    order = list(PROTOCOL_TITLES)
    return sorted(unsorted, key=lambda comparison: order.index(comparison.protocol))


class Experiment:
    """One or several results folders.

    Attributes:
        rows: all results; see `gopro.benchmark.report.join.join_results`.
        failures: the latest failure of each run that has no complete results since.
        history: the commands that wrote the folders.
        notes: what the report found missing or inconsistent, one sentence each.

    Raises:
        InputError: a folder has no results, one of its JSON files is broken, or its results do not go with those of the
            others.
    """

    def __init__(self, *folders: Path):
        self.folders = folders
        self.rows, self._folder_of = join_results(folders)
        self.history, failures = [], []
        for folder in folders:
            self.history += _read_lines(folder / "history.jsonl", ("when", "command", "machine", "versions"))
            failures += _read_lines(folder / "failures.jsonl", ("run", "method", "shots", "seed", "error", *_SETTING))
        latest = {(failure["protocol"], failure["run"]): failure for failure in failures}
        self.failures = [failure for failure in latest.values() if not self._succeeded_since(failure)]
        self.notes: list[str] = []
        self._predictions: dict[Path, Predictions | None] = {}

    def _succeeded_since(self, failure: ResultRow) -> bool:
        """Return True if the run has as many results as the most complete run of its setting."""
        counts = Counter(
            row.get("run")
            for row in self.rows
            if all(row[name] == failure[name] for name in _SETTING) and bool(row["shots"]) == bool(failure["shots"])
        )
        return 0 < counts[failure["run"]] == max(counts.values())

    def predictions(self, row: ResultRow) -> Predictions | None:
        """Load the predictions of an evaluation; None if their file is missing."""
        if (path := self._predictions_path(row)) is None:
            return None
        if path not in self._predictions:
            self._predictions[path] = Predictions.load(path) if path.is_file() else None
        return self._predictions[path]

    def _predictions_path(self, row: ResultRow) -> Path | None:
        if row.get("run") is None:
            return None
        return self._run_folder(row) / f"test-{slug(row['data'])}-{row['classes']}.safetensors"

    def class_count(self, row: ResultRow) -> int | None:
        """Return the number of classes of an evaluation, or None if neither its row nor a loaded file records it."""
        if "class_count" in row:
            return row["class_count"]
        path = self._predictions_path(row)
        loaded = None if path is None else self._predictions.get(path)
        return None if loaded is None else len(loaded.classnames)

    def data_root(self, row: ResultRow) -> Path | None:
        """Return the folder of data sets (`--root`) that the row's run was made with."""
        try:
            return read_config(self._run_folder(row))["config"].root
        except InputError:
            return None

    def _run_folder(self, row: ResultRow) -> Path:
        return self._folder_of[key_of(row)] / "runs" / Path(row["run"]).name

    def log(self, run: str) -> list[dict[str, float]]:
        """Read a run's log, one dict per step without the columns that have no value; empty without a log.

        Raises:
            InputError: a value is not a number.
        """
        paths = [folder / "runs" / Path(run).name / "log.csv" for folder in self.folders]
        return read_log(next(filter(Path.is_file, paths), paths[0]))

    def note_missing_predictions(self) -> None:
        """Add a note if prediction files that the report asked for are missing."""
        missing, total = list(self._predictions.values()).count(None), len(self._predictions)
        if missing == total > 0:
            self.notes.append("All prediction files are missing, so gains, confusions and images are not shown.")
        elif missing:
            self.notes.append(
                f"{missing} of {total} prediction files are missing. Gains, confusions and images are those of the "
                "others."
            )


def _read_lines(path: Path, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read a file of JSON objects that have these keys, one per line; empty if there is no such file."""
    if not path.exists():
        return []
    values = []
    for number, line in enumerate(whole_lines(path), 1):
        try:
            value = json.loads(line)
            for key in keys:
                value[key]
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}, line {number} is not an entry: repair or remove the line") from error
        values.append(value)
    return values


def read_log(path: Path) -> list[dict[str, float]]:
    """Read the log of a run, one dict per step without the columns that have no value; empty without a log.

    Raises:
        InputError: a value is not a number.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        try:
            return [{key: float(value) for key, value in row.items() if value} for row in csv.DictReader(file)]
        except (ValueError, TypeError) as error:
            raise InputError(f"{path} is not the log of a run ({error}): remove it") from error
