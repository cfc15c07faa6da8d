"""Losses for other programs: TensorBoard, Weights & Biases, MLflow and CSV files, through Fabric's loggers."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.csv_logs import CSVLogger
from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from gopro.errors import InputError, one_line
from gopro.files import write_json
from gopro.runs.config import LoggerName
from gopro.runs.run import Run
from gopro.training.progress import Epoch, Progress

PROJECT = "gopro"
"""Project of Weights & Biases, and experiment of MLflow."""
PACKAGES: dict[LoggerName, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb", "pytorch_lightning"),  # Fabric has no logger of its own for these two and takes Lightning's
    "mlflow": ("mlflow", "pytorch_lightning"),
    "csv": (),
}
"""The packages of the extra of each logger."""
TRACKED = "logger.json"
"""File with the identity of the run at the service that tracks it, so that a resumed run continues there."""


def check_logger(name: LoggerName | None) -> None:
    """Raise InputError if a logger's packages are not installed."""
    if name is not None and (missing := [package for package in PACKAGES[name] if find_spec(package) is None]):
        raise InputError(f"--logger {name} needs more packages ({', '.join(missing)}): pip install '.[{name}]'")


@contextmanager
def logged(progress: Progress, run: Run) -> Iterator[Progress]:
    """Log each epoch of a run with the logger that its settings name.

    The metrics have the names of the columns of log.csv. An epoch is logged once it is saved, so that no step is logged
    twice if the run is interrupted and resumed.

    Yields:
        The progress to report to instead of `progress`; it passes everything on.

    Raises:
        InputError: the logger cannot be set up; for example, its server does not answer.
    """
    try:
        logger = _make_logger(run)
    except Exception as error:  # of any of four libraries, or of their servers
        raise InputError(f"--logger {run.config.logger}: {one_line(error)}") from error

    def log(epoch: Epoch) -> None:
        progress.epoch(epoch)
        first = epoch.epoch * len(epoch.batches) + 1
        for step, batch in enumerate(epoch.batches, first):
            last = step == first + len(epoch.batches) - 1
            val = {"val": epoch.val} if last and epoch.val is not None else {}
            logger.log_metrics({"epoch": epoch.epoch, **batch, **val}, step)
        logger.save()

    status = "failed"
    try:
        yield replace(progress, epoch=log)
        status = "success"
    finally:
        logger.finalize(status)
        if run.config.logger == "wandb":  # whose logger would take the next run of this process for the same one
            logger.experiment.finish(exit_code=int(status == "failed"))  # pyright: ignore[reportAttributeAccessIssue]


def _make_logger(run: Run) -> Logger:
    """Make the logger of a run; a resumed run goes on where it was logged before."""
    folder = run.folder
    match run.config.logger:
        case "tensorboard":
            return TensorBoardLogger(folder, name="tensorboard", version="")
        case "wandb":
            from pytorch_lightning.loggers import WandbLogger  # pyright: ignore[reportMissingImports]

            logger = WandbLogger(
                name=folder.name, save_dir=folder, project=PROJECT, id=_identity(folder), resume="allow"
            )
            logger.experiment  # noqa: B018 (starts the run)
        case "mlflow":
            from pytorch_lightning.loggers import MLFlowLogger  # pyright: ignore[reportMissingImports]

            uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').resolve()}"
            logger = MLFlowLogger(PROJECT, run_name=folder.name, tracking_uri=uri, run_id=_identity(folder))
        case _:
            return CSVLogger(folder, name="csv")  # in csv/version_0, and from a resumed run on in csv/version_1
    write_json(folder / TRACKED, {"run": logger.version})
    logger.log_hyperparams(_settings(run))
    return logger


def _identity(folder: Path) -> str | None:
    """Return the identity of an interrupted run at its service; None for a new one."""
    path = folder / TRACKED
    return json.loads(path.read_bytes())["run"] if path.is_file() else None


def _settings(run: Run) -> dict[str, Any]:
    """Return the settings of a run, and all that it was trained with."""
    return {**run.config.to_json(), **({} if run.trained_with is None else run.trained_with.to_json())}
