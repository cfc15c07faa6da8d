"""An evaluation as JSON: what `gopro eval` writes into the folder of a run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from gopro.files import write_atomically
from gopro.inference.calibration import CalibrationError
from gopro.inference.evaluate import Evaluation


def evaluation_record(evaluation: Evaluation) -> dict[str, Any]:
    """Return what an evaluation says beside its accuracy. Shares are in percent.

    `ece`, `nll` and `mean_confidence` are explained by `gopro.inference.calibration.CalibrationError`, and the figures
    of `per_class` by `gopro.inference.confusion.ClassMetrics`. `confusion_matrix[i][j]` is the number of images of
    class i that were labelled as class j, in the order of `per_class`.
    """
    matrix = evaluation.confusion
    return {
        "macro_f1": round(matrix.macro_f1, 4),
        **_calibration(evaluation.calibration),
        "temperature": evaluation.temperature,
        "uncalibrated": _calibration(evaluation.uncalibrated),
        "per_class": [
            {
                "class": metrics.name,
                "images": metrics.images,
                "accuracy": _rounded(metrics.recall),
                "precision": _rounded(metrics.precision),
                "recall": _rounded(metrics.recall),
                "f1": _rounded(metrics.f1),
            }
            for metrics in matrix.classes()
        ],
        "confusion_matrix": matrix.counts.tolist(),
    }


def _calibration(error: CalibrationError) -> dict[str, float]:
    return {
        "ece": round(error.ece, 4),
        "nll": round(error.nll, 6),
        "mean_confidence": round(error.confidence, 4),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def write_record(path: Path, record: dict[str, Any]) -> None:
    """Write indented JSON in which a row of numbers is one line, atomically."""
    text = json.dumps(record, indent=2, ensure_ascii=False)
    # A line break inside a string is escaped, so this finds lists of numbers alone.
    text = re.sub(r"\[\n\s+(\d+(?:,\n\s+\d+)*)\n\s+\]", lambda row: f"[{' '.join(row[1].split())}]", text)
    write_atomically(path, f"{text}\n".encode())
