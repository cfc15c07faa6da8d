"""Sweeps: do the runs of a protocol that are missing, and write every result from this one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from gopro.benchmark.cluster import run_on_cluster
from gopro.benchmark.processes import run_in_processes
from gopro.benchmark.protocols import PROTOCOLS, PlannedRun
from gopro.benchmark.reuse import check_reusable
from gopro.benchmark.worker import Message, RunFailed, RunFinished, RunStarted, Task, Worker
from gopro.errors import InputError
from gopro.runs.config import SweepConfig
from gopro.runs.environment import describe_machine, describe_versions
from gopro.runs.results import ResultRow, Results, append_json
from gopro.training.folder_lock import lock_folder
from gopro.training.progress import Step

RESULTS, FAILURES, HISTORY = "results.jsonl", "failures.jsonl", "history.jsonl"
PREDICTIONS = "runs/*/test-*.safetensors"


@dataclass(frozen=True)
class SweepEvent:
    """A step in the progress of a sweep.

    Attributes:
        kind: `planned` comes once and first.
        run: the run that the event is about; None for `planned`.
        ended: runs that have ended so far in this call, out of `total`.
        total: runs that this call has to do.
        already_done: runs that needed nothing.
        seconds_left: estimate, available after the first training.
        error: of a failed run.
    """

    kind: Literal["planned", "started", "finished", "failed"]
    run: PlannedRun | None
    ended: int
    total: int
    already_done: int
    seconds_left: float | None = None
    error: str | None = None


@dataclass
class SweepResult:
    """All result rows of a sweep, earlier calls included, and the runs that failed in this call."""

    rows: list[ResultRow] = field(default_factory=list)
    failures: list[ResultRow] = field(default_factory=list)


def benchmark(protocol: str, config: SweepConfig, **sweep_options: object) -> SweepResult:
    """Plan a protocol and do those of its runs that are missing.

    Args:
        protocol: base-to-new, cross-dataset, domain-generalization or few-shot.
        config: a `TransferConfig` for cross-dataset and domain-generalization, else a `BenchmarkConfig`.
        sweep_options: keyword arguments of `sweep`.

    Raises:
        InputError: the config asks for something that does not exist. It is checked before the first run starts, as far
            as possible.

    Example:
        >>> from pathlib import Path
        >>> from gopro import BenchmarkConfig, benchmark
        >>> config = BenchmarkConfig(data=("emoji-activities",), methods=("zeroshot",), output=Path("runs/check"))
        >>> benchmark("base-to-new", config).rows[0]["accuracy"]  # doctest: +SKIP
        55.3488
    """
    if protocol not in PROTOCOLS:
        raise InputError(f"protocol {protocol!r}: choose one of {', '.join(PROTOCOLS)}")
    return sweep(PROTOCOLS[protocol](config), config, **sweep_options)  # pyright: ignore[reportArgumentType]


def sweep(
    runs: Sequence[PlannedRun],
    config: SweepConfig,
    *,
    command: str = "",
    on_event: Callable[[SweepEvent], None] = lambda event: None,
    on_step: Callable[[Step], None] = lambda step: None,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
) -> SweepResult:
    """Do what is missing of the runs, and write it to `config.output`.

    The folder gets a row of `results.jsonl` for each evaluation; the trained models and predictions in `runs/`; the
    runs that failed in `failures.jsonl` (others go on, and the next call tries them again); and the command, machine
    and versions in `history.jsonl`. An interrupted run is resumed.

    Args:
        command: the command line that the user typed, for `history.jsonl`.
        on_step, on_fill: as in `gopro.train`; called only for runs in this process, without `jobs` and `ray`.

    Raises:
        NotReusable: a run or result in the folder was made with other settings or images.
        InputError: another sweep is using the folder, or a file in it is broken.
    """
    with lock_folder(config.output, (PREDICTIONS,)):
        results = Results(config.output / RESULTS)
        check_reusable(runs, results)
        tasks: list[Task] = []
        for run in runs:
            if missing := [test for test in run.tests if results.find(test.key) is None]:
                tasks.append((run, missing))
        if tasks:
            _write_history(config.output, command)
        progress = _Progress(on_event, tasks, len(runs) - len(tasks), None if config.ray else config.jobs)
        failures = []
        for number, message in _do(tasks, config, on_step, on_fill):
            run = tasks[number][0]
            match message:
                case RunStarted():
                    progress.emit("started", run)
                case RunFinished(seconds):
                    progress.end(number, seconds)
                    progress.emit("finished", run)
                case RunFailed(error):
                    failures.append(_failure(run, message))
                    append_json(config.output / FAILURES, failures[-1])
                    progress.end(number, None)
                    progress.emit("failed", run, error)
                case row:
                    results.add(row)
        rows = [row for run in runs for test in run.tests if (row := results.find(test.key)) is not None]
        return SweepResult(rows, failures)


def _do(
    tasks: Sequence[Task],
    config: SweepConfig,
    on_step: Callable[[Step], None],
    on_fill: Callable[[int, int], None],
) -> Iterator[tuple[int, Message]]:
    """Do the tasks where the config says, and yield each message with the number of its task."""
    if not tasks:
        return
    if config.ray is not None:
        yield from run_on_cluster(tasks, config.ray)
    elif config.jobs > 1:
        yield from run_in_processes(tasks, config.jobs)
    else:
        worker = Worker()
        for number, (run, tests) in enumerate(tasks):
            for message in worker.work(run, tests, on_step, on_fill):
                yield number, message


class _Progress:
    """Counts the runs of a sweep, estimates the time left and emits events.

    The estimate scales the seconds that trainings have taken so far by the work that is left. Evaluation-only runs are
    excluded from it; their features are usually cached.
    """

    def __init__(self, on_event: Callable[[SweepEvent], None], tasks: Sequence[Task], done: int, at_once: int | None):
        """Emit `planned`. `at_once` is the number of runs at a time; None if only the cluster knows."""
        self.on_event, self.already_done, self.at_once = on_event, done, at_once
        self.runs = [run for run, _ in tasks]
        self.work_left = {number: run.work for number, run in enumerate(self.runs)}
        self.started, self.seconds, self.work_done = time.monotonic(), 0.0, 0.0
        self.emit("planned", None)

    def end(self, number: int, seconds: float | None) -> None:
        """Count a run as ended; `seconds` is None if it failed."""
        self.work_left.pop(number)
        if seconds is not None and self.runs[number].train.shots:
            self.seconds += seconds
            self.work_done += self.runs[number].work

    def emit(
        self,
        kind: Literal["planned", "started", "finished", "failed"],
        run: PlannedRun | None,
        error: str | None = None,
    ) -> None:
        total = len(self.runs)
        ended = total - len(self.work_left)
        self.on_event(SweepEvent(kind, run, ended, total, self.already_done, self._seconds_left(), error))

    def _seconds_left(self) -> float | None:
        if not self.work_done:
            return None
        # On a cluster, infer the number of runs at a time from how many seconds of training fit into one of the clock.
        at_once = self.at_once or max(1.0, self.seconds / (time.monotonic() - self.started))
        return self.seconds / self.work_done * sum(self.work_left.values()) / min(at_once, max(1, len(self.work_left)))


def _write_history(folder: Path, command: str) -> None:
    record = {"when": _now(), "command": command, "machine": describe_machine(), "versions": describe_versions()}
    append_json(folder / HISTORY, record)


def _failure(run: PlannedRun, failed: RunFailed) -> ResultRow:
    """Return the line of failures.jsonl."""
    key = asdict(run.tests[0].key)
    shared = {name: key[name] for name in ("protocol", "source", "method", "backbone", "shots", "seed")}
    return {"run": run.name, **shared, "error": failed.error, "traceback": failed.traceback, "when": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
