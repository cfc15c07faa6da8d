"""Weights in several files beside an index load like those in one file, and what is missing is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gopro.clip.weights.read_weights import read_weights
from gopro.errors import InputError

WEIGHTS = {"visual.proj": torch.arange(6.0).reshape(2, 3), "logit_scale": torch.tensor(4.6), "bias": torch.ones(2)}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
FILES = dict(zip(WEIGHTS, (SHARDS[0], SHARDS[1], SHARDS[1]), strict=True))


def write_index(folder: Path, content: Any, name: str = "model.safetensors.index.json") -> Path:
    (folder / name).write_text(json.dumps(content))
    return folder / name


@pytest.fixture
def index(tmp_path: Path) -> Path:
    for shard in SHARDS:
        save_file({name: tensor for name, tensor in WEIGHTS.items() if FILES[name] == shard}, tmp_path / shard)
    return write_index(tmp_path, {"metadata": {"total_size": 36}, "weight_map": FILES})


def same(state: dict[str, Tensor]) -> bool:
    return state.keys() == WEIGHTS.keys() and all(torch.equal(state[name], WEIGHTS[name]) for name in WEIGHTS)


def test_shards_of_safetensors_are_read(index: Path) -> None:
    assert same(read_weights(index))


def test_shards_of_torch_save_are_read_without_unpickling(tmp_path: Path) -> None:
    files = {name: f"pytorch_model-{i}.bin" for i, name in enumerate(WEIGHTS)}
    for name, file in files.items():
        torch.save({name: WEIGHTS[name]}, tmp_path / file)
    index = write_index(tmp_path, {"weight_map": files}, "pytorch_model.bin.index.json")
    assert same(read_weights(index))
    torch.save({"bias": print}, tmp_path / files["bias"])
    with pytest.raises(InputError, match=f"{files['bias']} is not opened: it holds more than tensors"):
        read_weights(index)


def test_a_missing_shard_is_named(index: Path) -> None:
    (index.parent / SHARDS[1]).unlink()
    with pytest.raises(InputError, match=f"{SHARDS[1]} is not beside it .1 of 2 files are missing"):
        read_weights(index)


def test_a_shard_without_its_tensor_is_named(index: Path) -> None:
    save_file({"other": torch.ones(1)}, index.parent / SHARDS[0])
    with pytest.raises(InputError, match=rf"{SHARDS[0]}: lacks visual\.proj"):
        read_weights(index)


def test_one_shard_alone_is_not_taken_for_the_model(index: Path) -> None:
    with pytest.raises(InputError, match=f"holds a part of the weights; give {index}"):
        read_weights(index.parent / SHARDS[0])
    index.unlink()  # a file may be called so
    assert list(read_weights(index.parent / SHARDS[0])) == ["visual.proj"]


@pytest.mark.parametrize(
    "content",
    [[], {}, {"weight_map": ["a"]}, {"weight_map": {"a": 1}}, *({"weight_map": {"a": p}} for p in ("../a", "/a", ""))],
)
def test_a_damaged_index_is_refused(content: Any, tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "a")
    with pytest.raises(InputError, match="download it again"):
        read_weights(write_index(tmp_path, content))
