"""The device to compute on, as a user names it."""

from __future__ import annotations

import re

import torch

from gopro.errors import InputError


def find_device(name: str | torch.device = "auto") -> torch.device:
    """Return a device that exists on this machine.

    Args:
        name: `cpu`, `cuda`, `cuda:1`, or `auto` for a GPU if there is one.

    Raises:
        InputError: another kind of device, or a GPU that torch does not find. Apple's GPUs (mps) are among the others:
            they lack float64, which the linear probe is solved in, and no test runs on them.

    Example:
        >>> find_device("cpu")
        device(type='cpu')
        >>> find_device("mps")
        Traceback (most recent call last):
        gopro.errors.InputError: device mps: give auto, cpu or cuda; gopro does not compute on Apple's GPUs, use cpu
    """
    text = str(name)
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if text.startswith("mps"):
        raise InputError(f"device {text}: give auto, cpu or cuda; gopro does not compute on Apple's GPUs, use cpu")
    match = re.fullmatch(r"cpu|cuda(?::(\d+))?", text)
    if match is None:
        raise InputError(f"device {text[:80]!r}: give auto, cpu, cuda, or cuda:1 for the second GPU")
    if text != "cpu" and not torch.cuda.is_available():
        raise InputError(f"device {text}: torch finds no GPU on this machine; use cpu")
    if match[1] is not None and int(match[1]) >= torch.cuda.device_count():
        raise InputError(f"device {text}: torch finds {torch.cuda.device_count()} GPUs on this machine, from cuda:0 on")
    return torch.device(text)
