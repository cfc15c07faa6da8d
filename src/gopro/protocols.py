"""The field's protocols as sweeps over data sets, methods and seeds."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gopro.backbone import Backbone, load_backbone
from gopro.config import BenchmarkConfig, TrainConfig
from gopro.data import load_dataset
from gopro.data.dataset import ClassHalf, Dataset
from gopro.errors import InputError
from gopro.evaluate import EncodedSamples, Evaluation, encode_samples, evaluate
from gopro.fit import Step
from gopro.methods import parse_method
from gopro.results import Results, Row
from gopro.run import CONFIG, LEARNED, Run, load_run, read_config
from gopro.train import make_fabric, resume, train

HALVES: tuple[ClassHalf, ...] = ("base", "new")


@dataclass(frozen=True)
class Progress:
    """Where a sweep stands: `run` of `runs`, and what it is at."""

    run: int
    runs: int
    data: str
    method: str
    seed: int


def base_to_new(
    config: BenchmarkConfig,
    *,
    on_run: Callable[[Progress], None] = lambda progress: None,
    on_step: Callable[[Step], None] = lambda step: None,
) -> list[Row]:
    """Trains on the base classes and tests on base and on new classes, for every data set, method and seed.

    The protocol of CoCoOp (Zhou et al. 2022, arXiv 2203.05557). Each evaluation is a row of `output/results.jsonl`;
    the runs lie under `output/runs`. What is already there is not run again, and a run that was cut off is gone on
    with.

    Returns:
        The rows that this sweep consists of, those found included.

    Raises:
        InputError: anything in the config that cannot be had, found before the first run where possible.
    """
    for method in config.methods:
        parse_method(method)
    datasets = {name: load_dataset(name, config.root) for name in config.data}
    for dataset in datasets.values():
        for seed in config.seeds:
            dataset.half("base").few_shot(config.shots, seed)
    results = Results(config.output / "results.jsonl")
    bench = _Bench(load_backbone(config.backbone, make_fabric(config).device), config.workers)
    rows: list[Row] = []
    plan = [(data, method, seed) for data in config.data for method in config.methods for seed in config.seeds]
    for number, (data, method, seed) in enumerate(plan, 1):
        dataset = datasets[data]
        keys: list[Row] = [
            {
                "protocol": "base-to-new",
                "data": dataset.name,
                "method": method,
                "backbone": config.backbone,
                "shots": config.shots,
                "seed": seed,
                "classes": half,
            }
            for half in HALVES
        ]
        wanted = config.run(data, method, seed, "base", run_folder(config, data, method, seed))
        _check_same(wanted)
        found = [results.find(key) for key in keys]
        if None in found:
            on_run(Progress(number, len(plan), dataset.name, method, seed))
            started = time.perf_counter()
            run = bench.trained(wanted, on_step)
            train_seconds = time.perf_counter() - started
            missing = [key for key, row in zip(keys, found, strict=True) if row is None]
            for key in missing:
                evaluation = bench.evaluated(run, dataset, key["classes"])
                results.add([{**key, **summary(evaluation), "train_seconds": round(train_seconds, 2)}])
        rows += [row for key in keys if (row := results.find(key)) is not None]
    return rows


def run_folder(config: BenchmarkConfig, data: str, method: str, seed: int) -> Path:
    """Where a sweep's run lies."""
    name = f"{slug(config.backbone)}-{slug(data)}-{slug(method)}-{config.shots}shots-seed{seed}"
    return config.output / "runs" / name


def summary(evaluation: Evaluation) -> Row:
    """The figures of an evaluation that a results row holds."""
    return {
        "accuracy": round(evaluation.accuracy, 4),
        "macro_accuracy": round(evaluation.macro_accuracy, 4),
        "n": evaluation.n,
        "seconds": round(evaluation.seconds, 2),
    }


class _Bench:
    """What the runs of a sweep share: the backbone, and the test pictures that it has seen."""

    def __init__(self, backbone: Backbone, workers: int):
        self.backbone, self.workers = backbone, workers
        self.seen: dict[tuple[str, ClassHalf], EncodedSamples] = {}

    def trained(self, config: TrainConfig, on_step: Callable[[Step], None]) -> Run:
        """The run as it lies in its folder, gone on with if it was cut off, or trained now."""
        if (config.output / LEARNED).is_file():
            return load_run(config.output, backbone=self.backbone)
        if (config.output / CONFIG).is_file():
            return resume(config.output, backbone=self.backbone, on_step=on_step)
        return train(config, backbone=self.backbone, on_step=on_step)

    def evaluated(self, run: Run, dataset: Dataset, half: ClassHalf) -> Evaluation:
        part = dataset.half(half)
        key = (dataset.name, half)
        if key not in self.seen:
            self.seen[key] = encode_samples(run.method, part.test, workers=self.workers)
        return evaluate(run.method.for_classes(part.classnames), self.seen[key])


def _check_same(wanted: TrainConfig) -> None:
    """That a run which is already there was told what this sweep would tell it.

    Raises:
        InputError: it was told otherwise, so that its results are not the ones asked for.
    """
    if not (wanted.output / CONFIG).is_file():
        return
    there = read_config(wanted.output)["config"]
    for name in ("backbone", "epochs", "batch", "lr", "optimizer", "precision"):
        if getattr(there, name) != getattr(wanted, name):
            raise InputError(
                f"{wanted.output} was run with {name} {getattr(there, name)}, not {getattr(wanted, name)}: "
                "choose another --output"
            )


def slug(text: str) -> str:
    """The text as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text.strip("/")).strip("_")
