"""Build and run the CLIP for photographs."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from open_clip import CLIP
from torch import Tensor, nn

from gopro.clip.weights.embedded import EMBEDDED
from tools.emoji_model import encode_text
from tools.photo_sources import SIZES

WEIGHTS = Path(__file__).parents[1] / "src" / "gopro" / "assets" / EMBEDDED["photo"].file
VOCABULARY = 49408
CLIP_TOKEN_STD = 0.02
"""Standard deviation with which CLIP's token embeddings start (open_clip) and CoOp draws its random contexts."""


def model_cfg(lite: int, dimensions: int, width: int, layers: int) -> dict:
    """Return the arguments of `open_clip.CLIP`."""
    return {
        "embed_dim": dimensions,
        "vision_cfg": {
            "timm_model_name": f"tf_efficientnet_lite{lite}",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "timm_proj_bias": True,
            "image_size": SIZES[lite],
        },
        "text_cfg": {
            "context_length": 77,
            "vocab_size": VOCABULARY,
            "width": width,
            "heads": width // 64,
            "layers": layers,
        },
    }


def preprocess_cfg(lite: int) -> dict:
    """Return the preparation of images that the towers were trained with."""
    half = [0.5, 0.5, 0.5]
    return {"size": SIZES[lite], "mean": half, "std": half, "interpolation": "bicubic", "resize_mode": "shortest"}


class FactorisedEmbedding(nn.Module):
    """A token embedding that is the product of two small matrices, so that it takes 6 MB in half precision, not 25."""

    def __init__(self, rank: int, width: int) -> None:
        super().__init__()
        self.left = nn.Parameter(0.05 * torch.randn(VOCABULARY, rank))
        self.right = nn.Parameter(0.4 * rank**-0.5 * torch.randn(rank, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """Embed tokens: [n, t] -> [n, t, width]."""
        return nn.functional.embedding(tokens, self.left) @ self.right


def text_tower(cfg: dict, rank: int) -> CLIP:
    """Build a model with random weights, without its image tower and with a factorised token embedding."""
    model = CLIP(**cfg)
    del model.visual
    model.token_embedding = FactorisedEmbedding(rank, cfg["text_cfg"]["width"])
    return model


def scale_residual_stream(weights: dict[str, Tensor], std: float) -> dict[str, Tensor]:
    """Return a text tower's state dict whose token embeddings have about the standard deviation `std`.

    Layer norms undo a factor of the whole residual stream, so the features stay the same but for their epsilon. The
    speed at which prompts learn does not: SGD at CLIP's rates hardly moves a context among tokens larger than CLIP's.
    The factor is a power of two, which adds no rounding.
    """
    left, right = weights["token_embedding.left"], weights["token_embedding.right"]
    own = (left[left.abs().sum(dim=1) > 0] @ right).std()
    factor = 2.0 ** round(math.log2(std / float(own)))
    stream = ("token_embedding.right", "positional_embedding", "attn.out_proj.weight", "attn.out_proj.bias")
    stream += ("mlp.c_proj.weight", "mlp.c_proj.bias")
    return {name: value * factor if name.endswith(stream) else value for name, value in weights.items()}


def encode_by_length(model: CLIP, tokens: Tensor, groups: int = 3) -> Tensor:
    """Encode token rows as unit features [n, d], in groups of similar length, each cut after its longest text.

    Rows may be cut, because the tower is causal.
    """
    ends = tokens.argmax(dim=1)  # end-of-text has the highest id
    order = ends.argsort()
    features = [encode_text(model, tokens[part, : int(ends[part].max()) + 1]) for part in order.chunk(groups)]
    return torch.cat(features)[order.argsort()]
