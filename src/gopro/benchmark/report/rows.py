"""Rows of results.jsonl, validated for the tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Any

from gopro.errors import InputError
from gopro.runs.results import KEY, RunKey

PROTOCOL_TITLES = {
    "base-to-new": "Base-to-new",
    "cross-dataset": "Cross-dataset",
    "domain-generalization": "Domain generalization",
    "few-shot": "Few-shot",
}
"""Each protocol's name in prose, in the order of their tables."""

TRANSFER = ("cross-dataset", "domain-generalization")
"""Protocols that train on one data set and test on others."""


@dataclass(frozen=True)
class Score(RunKey):
    """The accuracy of one evaluation, in percent, with the key of its row."""

    accuracy: float


def read_scores(rows: Iterable[Mapping[str, Any]]) -> list[Score]:
    """Validate the rows and return their accuracies in the same order.

    Raises:
        InputError: a row lacks a key, has an impossible value, contradicts its protocol, or occurs twice.
    """
    scores: dict[tuple[Any, ...], Score] = {}
    for number, row in enumerate(rows, start=1):
        score = _score(number, row)
        key = astuple(score)[: len(KEY)]
        if key in scores:
            raise InputError(f"{_name(number, row)} occurs twice: remove one of the two")
        scores[key] = score
    return list(scores.values())


def _name(number: int, row: Mapping[str, Any]) -> str:
    return (
        f"result {number} ({row['data']}, {row['method']}, {row['shots']} shots, seed {row['seed']}, {row['classes']})"
    )


def _score(number: int, row: Mapping[str, Any]) -> Score:
    for name in (*KEY, "accuracy"):
        if name not in row:
            raise InputError(f"result {number} has no {name!r}: a row of results.jsonl needs it")
    result = _name(number, row)
    for name in KEY:
        if name == "shots" and row[name] == "all":
            continue
        kind = int if name in ("shots", "seed") else str
        if type(row[name]) is not kind or (kind is int and row[name] < 0):
            expected = "a whole number from 0" if kind is int else "a string"
            raise InputError(f"{result}: {name} is {row[name]!r}; it must be {expected}")
    protocol, accuracy = row["protocol"], row["accuracy"]
    if protocol not in PROTOCOL_TITLES:
        hint = " (what gopro tune found is in tuned.json)" if protocol == "tuning" else ""
        raise InputError(f"{result}: protocol is {protocol!r}{hint}; it must be one of {', '.join(PROTOCOL_TITLES)}")
    halves = ("base", "new") if protocol == "base-to-new" else ("all",)
    if row["classes"] not in halves:
        raise InputError(f"{result}: classes is {row['classes']!r}; in {protocol} it must be {' or '.join(halves)}")
    if protocol not in TRANSFER and row["source"] != row["data"]:
        raise InputError(f"{result}: source is {row['source']!r}; {protocol} tests on the data set that it trains on")
    if not isinstance(accuracy, int | float) or isinstance(accuracy, bool) or not 0 <= accuracy <= 100:
        raise InputError(f"{result}: accuracy is {accuracy!r}; it must be a percentage from 0 to 100")
    return Score(**{name: row[name] for name in KEY}, accuracy=float(accuracy))
