"""`calibration.json`: written, read, missing and damaged."""

from pathlib import Path

import pytest

from gopro.errors import InputError
from gopro.runs.calibration import CALIBRATION, Calibration, check_temperature, read_calibration, write_calibration


def test_a_calibration_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None  # imported, or of an earlier version
    calibration = Calibration(0.71, 36, 91.6667, 1.2, 83.3333)
    write_calibration(tmp_path, calibration)
    assert read_calibration(tmp_path) == calibration


@pytest.mark.parametrize(
    "content", ["", "[]", "{", '{"temperature": 0}', '{"temperature": "1"}', '{"temperature": NaN}', '{"other": 1}']
)
def test_a_damaged_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / CALIBRATION).write_text(content)
    with pytest.raises(InputError, match=r"calibration\.json is not the calibration of a run"):
        read_calibration(tmp_path)


@pytest.mark.parametrize("value", [0, -1, 21, float("inf"), float("nan"), True])
def test_impossible_temperatures_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=r"temperature is .*: give a number from 0\.05 to 20"):
        check_temperature(value)
