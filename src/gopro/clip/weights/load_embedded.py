"""Read the weights of the embedded models; see `gopro.clip.weights.embedded`."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import open_clip
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from gopro.clip.weights.embedded import EMBEDDED

TOKENS = "token_embedding"


def load_embedded(name: str) -> tuple[Any, dict[str, Any]]:
    """Load an embedded model.

    Returns:
        The open_clip model in fp32, and the configuration of its preprocessing.
    """
    metadata = read_metadata(name)
    model = open_clip.CLIP(**metadata["model_cfg"])
    model.load_state_dict(expand_token_embedding(load_file(_path(name))))
    return model, metadata["preprocess_cfg"]


def read_metadata(name: str) -> dict[str, Any]:
    """Return the metadata of an embedded model, without reading its weights: `model_cfg`, `preprocess_cfg`, ..."""
    with safe_open(_path(name), framework="pt") as file:
        return {key: json.loads(value) for key, value in file.metadata().items()}


def _path(name: str) -> Path:
    return Path(str(files("gopro") / "assets" / EMBEDDED[name].file))


def expand_token_embedding(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the state dict with a whole token embedding, which a file may hold in less room.

    All rows of CLIP's 49,408 tokens take 25 MB in half precision at width 256. In their place a file may have
    `token_embedding.left` [vocabulary, rank] and `token_embedding.right` [rank, width], fp16: factors of the weight.
    Every product of two fp16 numbers is a multiple of 2^-48, so sums below 32 are exact in fp64 and the weight, and
    with it the model's fingerprint, is the same on every machine.
    """
    state = dict(state)
    if f"{TOKENS}.left" in state:
        left, right = state.pop(f"{TOKENS}.left"), state.pop(f"{TOKENS}.right")
        state[f"{TOKENS}.weight"] = (left.double() @ right.double()).float()
    return state
