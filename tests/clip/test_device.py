"""Devices by name: those that this machine has, and one line for all others."""

import pytest
import torch

from gopro.clip.backbone import load_backbone
from gopro.clip.device import find_device
from gopro.errors import InputError


def test_devices_of_a_machine_with_two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    names = ("auto", "cpu", "cuda", "cuda:1", torch.device("cuda", 1))
    assert [str(find_device(name)) for name in names] == ["cuda", "cpu", "cuda", "cuda:1", "cuda:1"]
    with pytest.raises(InputError, match="device cuda:2: torch finds 2 GPUs on this machine, from cuda:0 on"):
        find_device("cuda:2")


def test_devices_of_a_machine_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("auto") == find_device() == torch.device("cpu")
    for name, words in {
        "cuda": "device cuda: torch finds no GPU on this machine; use cpu",
        "cuda:0": "device cuda:0: torch finds no GPU",
        "mps": "device mps: give auto, cpu or cuda; gopro does not compute on Apple's GPUs, use cpu",
        "gpu": "device 'gpu': give auto, cpu, cuda, or cuda:1",
        "cuda:x": "device 'cuda:x': give",
        "": "device '': give",
    }.items():
        with pytest.raises(InputError, match=words):
            find_device(name)
    with pytest.raises(InputError, match="device mps"):
        load_backbone("emoji", "mps")
