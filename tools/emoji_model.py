"""Build, read and run the small CLIP of the embedded benchmark."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

WEIGHTS = Path(__file__).parents[1] / "src" / "gopro" / "assets" / "emoji-clip.safetensors"
TEMPLATE = "a photo of a {}."
PREPROCESS = {
    "size": 64,
    "mean": [0.5, 0.5, 0.5],
    "std": [0.25, 0.25, 0.25],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}


def build(cfg: dict, patch_dropout: float = 0.0) -> CLIP:
    """Build a model with random weights from `cfg`, the three arguments of `CLIP`."""
    return CLIP(cfg["embed_dim"], {**cfg["vision_cfg"], "patch_dropout": patch_dropout}, cfg["text_cfg"])


def normalise(images: Tensor) -> Tensor:
    """Convert uint8 [n, 64, 64, 3] to the model's input [n, 3, 64, 64]."""
    mean, std = torch.tensor(PREPROCESS["mean"]), torch.tensor(PREPROCESS["std"])
    return ((images.float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def encode_text(model: CLIP, tokens: Tensor) -> Tensor:
    """Encode token rows as unit features. Rows may be cut after the longest caption, because the tower is causal."""
    length = tokens.shape[1]
    x = model.token_embedding(tokens) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    x = x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection
    return F.normalize(x, dim=-1)


def read(path: Path) -> CLIP:
    """Read a model from an exported file, in evaluation mode."""
    with safe_open(path, "pt") as file:
        model = build(json.loads(file.metadata()["model_cfg"]))
    model.load_state_dict({name: weight.float() for name, weight in load_file(path).items()})
    return model.eval()
