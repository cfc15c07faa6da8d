"""The examples in the docstrings of the frozen model and of data-parallel training."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(
    "module",
    [
        "gopro.clip.backbone",
        "gopro.clip.encode_text",
        "gopro.clip.memory_plan",
        "gopro.clip.packed_layout",
        "gopro.clip.recompute",
        "gopro.clip.similarity",
        "gopro.distributed",
    ],
)
def test_examples_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(module), extraglobs={"torch": importlib.import_module("torch")})
    assert result.failed == 0 and result.attempted > 0
