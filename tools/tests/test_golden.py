"""The recordings in tests/golden are small and have the settings of the recording tools."""

import json

import pytest

from tests.support.golden import CLASSNAMES, GOLDEN, read_golden
from tools.golden_maple import SPECS
from tools.golden_rivals import CASES
from tools.golden_training import TRAININGS

ALL = SPECS | {name: case.spec for name, case in CASES.items()}


@pytest.mark.parametrize("name", ALL)
def test_a_recording_has_the_settings_of_its_tool(name: str) -> None:
    _, metadata = read_golden(name)
    assert (GOLDEN / f"{name}.safetensors").stat().st_size < 3e5
    assert metadata["spec"] == ALL[name]
    assert json.loads(metadata["classnames"]) == [classname.replace("_", " ") for classname in CLASSNAMES]


@pytest.mark.parametrize("name", TRAININGS)
def test_a_recorded_training_has_the_settings_of_its_tool(name: str) -> None:
    _, metadata = read_golden(f"training-{name}")
    assert (GOLDEN / f"training-{name}.safetensors").stat().st_size < 1.5e5
    assert metadata["spec"] == TRAININGS[name].spec
