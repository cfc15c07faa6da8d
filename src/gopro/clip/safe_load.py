"""Files of torch.save from anywhere: tensors, numbers and text are made of them, and nothing that runs."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gopro.errors import InputError


def safe_load(path: Path, passed_over: Sequence[Any] = ()) -> Any:
    """What a file of torch.save holds, read weights-only.

    Args:
        passed_over: what may stand in the file beside tensors, numbers and text; see
            `torch.serialization.safe_globals`.

    Raises:
        InputError: it is damaged or no such file, holds code, or would take more memory than it has bytes.
    """
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                    raise InputError(f"{path} is not opened: it is compressed, which torch.save never does")
        with torch.serialization.safe_globals(list(passed_over)):
            return torch.load(path, "cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # a damaged file makes torch raise nearly anything
        if named := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise InputError(
                f"{path} is not opened: it is more than tensors, it would call {named[1]}; if you trust whoever made "
                "it, save its state_dict alone, with torch.save or as .safetensors"
            ) from error
        if "TorchScript" in str(error):
            raise InputError(
                f"{path} is not opened: it is a TorchScript archive, which holds code; if you trust whoever made it, "
                "save its state_dict alone, with torch.save or as .safetensors"
            ) from error
        raise InputError(f"{path} cannot be read as plain tensors: it is damaged, or not from torch.save") from error


def state_dict(path: Path, content: Any) -> dict[str, Tensor]:
    """The state dict that is the content of a file, or stands in it under this name.

    Raises:
        InputError: there is none, or a tensor in it is not plain numbers: one that is sparse or repeats a few numbers
            would take any amount of memory when it is copied.
    """
    state = content.get("state_dict", content) if isinstance(content, dict) else content
    if not isinstance(state, dict) or not all(isinstance(k, str) and isinstance(t, Tensor) for k, t in state.items()):
        raise InputError(f"{path} holds no state dict: save the model's state dict alone")
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise InputError(f"{path}: its {key[:80]} is no plain tensor: save the model's state dict alone")
        if tensor.nbytes > tensor.untyped_storage().nbytes():
            shape = "x".join(map(str, tensor.shape))
            raise InputError(f"{path}: its {key[:80]} claims {shape} numbers, and holds fewer: save it with .clone()")
    return state
