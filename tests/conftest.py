"""What several test files use."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("gopro", deadline=None)  # no test depends on how busy the machine is
settings.load_profile("gopro")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference files beside the repository; tests that need it skip without it."""
    folder = Path(__file__).resolve().parents[2] / "shared"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: it holds the real data this test runs on")
    return folder
