"""The same seed gives the same bits, in any process and beside any other work."""

import os
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from gopro.clip.backbone import Backbone
from gopro.runs.config import TrainConfig
from gopro.runs.run import LEARNED
from gopro.training.determinism import deterministic
from gopro.training.resume_state import LOG
from gopro.training.train import train

CONFIG = TrainConfig(
    data="emoji-activities", output=Path(), method="gopro", shots=1, epochs=2, batch=16, classes="base", workers=0
)


def losses(folder: Path) -> list[list[str]]:
    """Return the rows of the log without the seconds."""
    return [line.split(",")[:-1] for line in (folder / LOG).read_text().splitlines()]


def test_two_processes_give_the_same_bits(tmp_path: Path) -> None:
    """The hash seed, the number of workers and the state of the feature cache differ."""
    folders = []
    for hash_seed, workers in ((1, 0), (2, 2)):
        folder = tmp_path / str(hash_seed)
        command = [sys.executable, "-m", "gopro.cli", "train", "--data", "emoji-activities", "--output", folder]
        command += ["--shots", "1", "--epochs", "1", "--batch", "16", "--workers", workers, "--deterministic"]
        environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "OMP_NUM_THREADS": "1"}
        done = subprocess.run([str(part) for part in command], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        folders.append(folder)
    one, other = folders
    assert (one / LEARNED).read_bytes() == (other / LEARNED).read_bytes()
    assert losses(one) == losses(other)


@pytest.mark.parametrize("method", ["gopro", "gopro-release", "coop[tokens=2]", "tip-adapter-f", "promptsrc"])
def test_only_the_seed_decides_the_result(method: str, tmp_path: Path, tiny: Backbone) -> None:
    """The state of the process's random generators and other runs have no influence."""
    learned = []
    for turn in range(2):
        random.seed(turn)
        np.random.seed(turn)
        torch.manual_seed(turn)
        folder = tmp_path / str(turn)
        train(replace(CONFIG, method=method, output=folder, epochs=1), backbone=tiny)
        if turn == 0:
            train(replace(CONFIG, method=method, output=tmp_path / "other", epochs=1, seed=2), backbone=tiny)
        learned.append(load_file(folder / LEARNED))
    assert all(torch.equal(learned[0][key], learned[1][key]) for key in learned[0])
    assert any(not torch.equal(t, learned[0][key]) for key, t in load_file(tmp_path / "other" / LEARNED).items())


def test_deterministic_restores_the_earlier_settings() -> None:
    def state() -> tuple[bool, ...]:
        cudnn = torch.backends.cudnn
        return torch.are_deterministic_algorithms_enabled(), cudnn.benchmark, cudnn.deterministic

    before = state()
    with deterministic(False):
        assert state() == before
    with pytest.raises(KeyError), deterministic(True):
        assert state() == (True, False, True)
        raise KeyError
    assert state() == before
