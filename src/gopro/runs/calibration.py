"""The temperature of a run, fitted on its validation images, and its accuracy on them: `calibration.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from gopro.errors import InputError
from gopro.files import write_json

CALIBRATION = "calibration.json"

TEMPERATURES = 0.05, 20.0
"""The smallest and the largest temperature."""


@dataclass(frozen=True)
class Calibration:
    """What the validation images tell of a run, and of zero-shot CLIP with the same classes and backbone.

    Attributes:
        temperature: number that logits are divided by, so that of the predictions with a probability of 80 % about 80 %
            are right; 1 if there are no validation images.
        images: number of validation images that it was fitted on.
        accuracy: on these images, in percent; None if there are none.
        zeroshot_temperature: that of zero-shot CLIP.
        zeroshot_accuracy: its accuracy on these images, in percent; None if there are none.
        problem: why no temperature could be fitted; None if there is one.
    """

    temperature: float = 1.0
    images: int = 0
    accuracy: float | None = None
    zeroshot_temperature: float = 1.0
    zeroshot_accuracy: float | None = None
    problem: str | None = None

    def __post_init__(self) -> None:
        for value in (self.temperature, self.zeroshot_temperature):
            check_temperature(value)


def check_temperature(value: float) -> float:
    """Return the value if it can be a temperature.

    Raises:
        InputError: it is not a number from 0.05 to 20.
    """
    low, high = TEMPERATURES
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise InputError(
            f"temperature is {value!r}: give a number from {low:g} to {high:g}; 1 leaves logits as they are"
        )
    return float(value)


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write `calibration.json` into the folder of a run."""
    write_json(folder / CALIBRATION, asdict(calibration))


def read_calibration(folder: Path) -> Calibration | None:
    """Read the `calibration.json` of a run; None for an imported run or one of an earlier version.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    path = folder / CALIBRATION
    if not path.exists():
        return None
    try:
        return Calibration(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError, InputError) as error:
        raise InputError(
            f"{path} is not the calibration of a run ({str(error)[:200]}): put it back, or remove it to use the "
            "probabilities as they are"
        ) from error
