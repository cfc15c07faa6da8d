"""Read torch.save files from untrusted sources: tensors, numbers and text, never code."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gopro.errors import InputError


def safe_load(path: Path, allowed: Sequence[Any] = ()) -> Any:
    """Read a torch.save file weights-only.

    Args:
        allowed: classes and functions that the file may name beside tensors, numbers and text; see
            `torch.serialization.safe_globals`.

    Raises:
        InputError: the file is damaged, is not from torch.save, holds code, or is compressed (and so could expand to
            any amount of memory).
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                    raise InputError(f"{path} is not opened: it is compressed, which files of torch.save never are")
        with torch.serialization.safe_globals(list(allowed)):
            return torch.load(path, "cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # torch raises almost any exception for a damaged file
        if code := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"{path} is not opened: it holds more than tensors, it would call {code[1]}; if you trust whoever made "
                "it, save only its state_dict, with torch.save or as .safetensors"
            ) from error
        if "TorchScript" in str(error):
            raise InputError(
                f"{path} is not opened: it is a TorchScript archive, which holds code; if you trust whoever made it, "
                "save only its state_dict, with torch.save or as .safetensors"
            ) from error
        raise InputError(f"{path} cannot be read as plain tensors: it is damaged, or not from torch.save") from error


def state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """Return the state dict that a file's content is, or holds under `state_dict`, `model_state_dict` or `model`.

    Raises:
        InputError: there is none, or one of its tensors is not dense: a sparse tensor, or one that repeats a few
            numbers by its strides, could expand to any amount of memory when it is copied.
    """
    state = content
    if isinstance(content, dict):
        state = next((content[key] for key in ("state_dict", "model_state_dict", "model") if key in content), content)
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(t, Tensor) for k, t in state.items()):
        raise InputError(f"{path} holds no state dict: save only the model's state dict")
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InputError(f"{path}: {key[:80]} is not a dense tensor on the CPU: save only the model's state dict")
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            shape = "x".join(map(str, tensor.shape))
            raise InputError(f"{path}: {key[:80]} claims {shape} numbers but holds fewer: save it with .clone()")
    return state
