"""A trained run and a server of it, shared by the tests of the service and of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gopro.runs.config import TrainConfig
from gopro.runs.run import Run
from gopro.training.train import train
from tests.conftest import make_tiny
from tests.support.serve import RunningServer, serve_in_thread


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    config = TrainConfig(
        data="emoji-activities",
        classes="base",
        shots=1,
        epochs=1,
        batch=16,
        workers=0,
        output=tmp_path_factory.mktemp("serve") / "run",
        device="cpu",
    )
    # A backbone of its own: the server hooks into its image tower for the whole session, which no trace may see.
    return train(config, backbone=make_tiny())


@pytest.fixture(scope="session")
def server(trained_run: Run) -> Iterator[RunningServer]:
    with serve_in_thread(trained_run) as server:
        yield server
