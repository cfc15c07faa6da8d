"""A sweep: what is there already is left alone, what is missing is run, every result is written by this one process."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from gopro.benchmark import protocols
from gopro.benchmark.cluster import on_cluster
from gopro.benchmark.processes import Task, in_processes
from gopro.benchmark.protocols import Job
from gopro.benchmark.worker import Done, Failed, Message, Worker
from gopro.errors import InputError
from gopro.runs.config import SweepConfig, TrainConfig
from gopro.runs.environment import describe_machine, describe_versions
from gopro.runs.results import ResultRow, Results, append_json
from gopro.runs.run import CONFIG, read_config
from gopro.training.folder_lock import lock_folder
from gopro.training.loop import Step

RESULTS, FAILURES, HISTORY = "results.jsonl", "failures.jsonl", "history.jsonl"
PREDICTIONS = "runs/*/test-*.safetensors"

PLANS: dict[str, Callable[..., list[Job]]] = {
    "base-to-new": protocols.base_to_new,
    "cross-dataset": protocols.cross_dataset,
    "domain-generalization": protocols.domain_generalization,
    "few-shot": protocols.few_shot,
}


@dataclass(frozen=True)
class Event:
    """What a sweep says of itself while it goes on.

    Attributes:
        kind: `planned` comes once and first.
        job: the run that it is about; None for `planned`.
        ended: runs that have ended so far in this call, of `runs` to do in it; `found` needed nothing.
        seconds_left: an estimate, from the first trained run on.
        error: of a failed run.
    """

    kind: Literal["planned", "started", "finished", "failed"]
    job: Job | None
    ended: int
    runs: int
    found: int
    seconds_left: float | None = None
    error: str | None = None


@dataclass
class Outcome:
    """The rows that a sweep consists of, those found included, and the runs that failed in this call."""

    rows: list[ResultRow] = field(default_factory=list)
    failures: list[ResultRow] = field(default_factory=list)


def benchmark(protocol: str, config: SweepConfig, **to_sweep: object) -> Outcome:
    """Plans a protocol and sweeps over it; `to_sweep` are the keywords of `sweep`.

    Args:
        protocol: base-to-new, cross-dataset, domain-generalization or few-shot.
        config: a `BenchmarkConfig`, or a `TransferConfig` for the middle two.

    Raises:
        InputError: anything in the config that cannot be had, found before the first run where possible.
    """
    if protocol not in PLANS:
        raise InputError(f"protocol {protocol!r}: choose one of {', '.join(PLANS)}")
    return sweep(PLANS[protocol](config), config, **to_sweep)  # pyright: ignore[reportArgumentType]


def sweep(
    jobs: Sequence[Job],
    config: SweepConfig,
    *,
    command: str = "",
    on_event: Callable[[Event], None] = lambda event: None,
    on_step: Callable[[Step], None] = lambda step: None,
    on_fill: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Does what is missing of the jobs, and writes it to `config.output`.

    `results.jsonl` gets a row for each evaluation, `runs/` the trained models and the predictions, `failures.jsonl` the
    runs that failed (which stops no other; the next call tries them again), `history.jsonl` what made them and where. A
    run that was cut off is gone on with.

    Args:
        command: what the user typed, for the record.
        on_step, on_fill: as of `gopro.train`, for runs in this process: not with `jobs` or `ray`.

    Raises:
        InputError: a run that is there was told otherwise; another sweep is at this folder; faulty files in it.
    """
    with lock_folder(config.output, (PREDICTIONS,)):
        for job in jobs:
            _check_same(job.train)
        results = Results(config.output / RESULTS)
        tasks: list[Task] = []
        for job in jobs:
            if missing := [test for test in job.tests if results.find(test.key) is None]:
                tasks.append((job, missing))
        found = len(jobs) - len(tasks)
        on_event(Event("planned", None, 0, len(tasks), found))
        if tasks:
            record = {
                "when": _now(),
                "command": command,
                "machine": describe_machine(),
                "versions": describe_versions(),
            }
            append_json(config.output / HISTORY, record)
        outcome = Outcome()
        clock = _Clock([job for job, _ in tasks], config.jobs if config.ray is None else None)
        for number, message in _messages(tasks, config, on_step, on_fill):
            job = tasks[number][0]
            match message:
                case None:
                    on_event(Event("started", job, clock.ended, len(tasks), found, clock.seconds_left()))
                case Done(seconds):
                    clock.end(number, seconds)
                    on_event(Event("finished", job, clock.ended, len(tasks), found, clock.seconds_left()))
                case Failed(error, traceback):
                    clock.end(number, None)
                    outcome.failures.append(_failure(job, error, traceback))
                    append_json(config.output / FAILURES, outcome.failures[-1])
                    on_event(Event("failed", job, clock.ended, len(tasks), found, clock.seconds_left(), error))
                case row:
                    results.add(row)
        outcome.rows += [row for job in jobs for test in job.tests if (row := results.find(test.key)) is not None]
        return outcome


def _messages(
    tasks: Sequence[Task],
    config: SweepConfig,
    on_step: Callable[[Step], None],
    on_fill: Callable[[int, int], None],
) -> Iterator[tuple[int, Message | None]]:
    if not tasks:
        return
    if config.ray is not None:
        yield from on_cluster(tasks, config.ray)
    elif config.jobs > 1:
        yield from in_processes(tasks, config.jobs)
    else:
        worker = Worker()
        for number, (job, tests) in enumerate(tasks):
            yield number, None
            for message in worker.work(job, tests, on_step, on_fill):
                yield number, message


class _Clock:
    """How long a sweep has still to go, from the seconds that the trained runs so far took for their share of the work.

    What only tests says little of it: most of its time is what the others find done already.
    """

    def __init__(self, jobs: list[Job], at_once: int | None):
        self.jobs, self.at_once = jobs, at_once
        self.left = {number: job.work for number, job in enumerate(jobs)}
        self.began, self.seconds, self.done, self.ended = time.monotonic(), 0.0, 0.0, 0

    def end(self, number: int, seconds: float | None) -> None:
        self.left.pop(number)
        self.ended += 1
        if seconds is not None and self.jobs[number].train.shots:
            self.seconds += seconds
            self.done += self.jobs[number].work

    def seconds_left(self) -> float | None:
        if not self.done:
            return None
        at_once = self.at_once or max(1.0, self.seconds / (time.monotonic() - self.began))
        return self.seconds / self.done * sum(self.left.values()) / min(at_once, max(1, len(self.left)))


def _check_same(wanted: TrainConfig) -> None:
    """That a run which is already there was told what this sweep would tell it.

    Raises:
        InputError: it was told otherwise, so that its results are not the ones asked for.
    """
    if not (wanted.output / CONFIG).is_file():
        return
    there: TrainConfig = read_config(wanted.output)["config"]
    folders = [Path(config.data) for config in (there, wanted)]
    if any(folder.is_dir() for folder in folders) and folders[0].resolve() != folders[1].resolve():
        raise InputError(f"{wanted.output} was run on {there.data}, not {wanted.data}: choose another --output")
    for name in ("backbone", "epochs", "batch", "lr", "optimizer", "select", "precision", "bank", "crop"):
        if getattr(there, name) != getattr(wanted, name):
            raise InputError(
                f"{wanted.output} was run with {name} {getattr(there, name)}, not {getattr(wanted, name)}: "
                "choose another --output"
            )


def _failure(job: Job, error: str, traceback: str | None) -> ResultRow:
    key = job.tests[0].key
    known = {"run": job.run, "protocol": key.protocol, "source": key.source, "method": key.method}
    known |= {"backbone": key.backbone, "shots": key.shots, "seed": key.seed}
    return {**known, "error": error, "traceback": traceback, "when": _now()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
