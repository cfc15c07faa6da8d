"""Print an evaluation for `gopro eval`, within 80 columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from gopro.cli.console import out

if TYPE_CHECKING:
    from gopro.inference.confusion import ClassMetrics, ConfusionMatrix
    from gopro.inference.evaluate import Evaluation
    from gopro.runs.calibration import Calibration

MAX_CLASSES = 25
"""Classes that are listed, at most."""
MAX_CONFUSIONS = 5
"""Confusions that are listed, at most."""


def print_classes(matrix: ConfusionMatrix) -> None:
    """Print precision, recall and F1 of each class, or of the `MAX_CLASSES` with the lowest F1."""
    tested = [metrics for metrics in matrix.classes() if metrics.f1 is not None]
    shown = sorted(tested, key=lambda metrics: metrics.f1 or 0.0)[:MAX_CLASSES]
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    table.add_column("class, lowest F1 first", overflow="fold")
    for heading in ("images", "precision", "recall", "F1"):
        table.add_column(heading, justify="right", no_wrap=True)
    for metrics in shown:
        table.add_row(Text(metrics.name), *_cells(metrics))
    out.print_line("")
    out.print(table)
    if len(shown) < len(tested):
        out.print_line(f"{len(tested) - len(shown)} more classes, with a higher F1, are in the file below.")
    out.print_line("")


def _cells(metrics: ClassMetrics) -> tuple[str, ...]:
    shares = (metrics.precision, metrics.recall, metrics.f1)
    return (str(metrics.images), *("–" if share is None else f"{share:.1f} %" for share in shares))


def print_confusions(matrix: ConfusionMatrix) -> None:
    """Print the most frequent confusions."""
    confusions = matrix.largest(MAX_CONFUSIONS)
    if not confusions:
        return
    out.print_line("Most frequent confusions:")
    for confusion in confusions:
        images = "image" if confusion.images == 1 else "images"
        out.print_line(
            f"  {confusion.count} of {confusion.images} {images} of {confusion.truth} labelled as {confusion.label}"
        )
    out.print_line("")


def print_calibration(evaluation: Evaluation, fitted: Calibration | None) -> None:
    """Print how well calibrated the probabilities are.

    Args:
        fitted: the calibration of the run, None if it has none.
    """
    error, before = evaluation.calibration, evaluation.uncalibrated
    out.print_line(
        f"Calibration: mean confidence {error.confidence:.1f} %, right {evaluation.accuracy:.1f} % "
        f"(ECE {error.ece:.1f} %, NLL {error.nll:.2f})"
    )
    if evaluation.temperature != 1:
        out.print_line(
            f"  without the temperature {evaluation.temperature:.2f}: confidence {before.confidence:.1f} % "
            f"(ECE {before.ece:.1f} %, NLL {before.nll:.2f})"
        )
    elif fitted is None:
        out.print_line("  The run has no temperature: it was imported, or an earlier version trained it.")
    elif fitted.problem is not None:
        out.print_line(f"  The run has no temperature: {fitted.problem}.")
