"""Weights of CLIP and SigLIP in the layout of the `transformers` library, renamed to open_clip's.

Files of huggingface.co such as openai/clip-vit-base-patch32 and google/siglip-base-patch16-224 are in this layout. The
numbers are the same: `transformers` has three matrices where open_clip has one for queries, keys and values, and holds
projections transposed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_BLOCK = {
    "self_attn.in_proj_": "attn.in_proj_",
    "self_attn.out_proj.": "attn.out_proj.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
}
"""Parts of a transformer block: their names in `transformers` and in open_clip."""

_TIMM_BLOCK = {
    "self_attn.in_proj_": "attn.qkv.",
    "self_attn.out_proj.": "attn.proj.",
    "layer_norm1.": "norm1.",
    "layer_norm2.": "norm2.",
    "mlp.": "mlp.",
}
"""The same in timm, whose ViTs are the image towers of SigLIP."""

_TEXT = {
    "text_model.embeddings.token_embedding.": "token_embedding.",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm.": "ln_final.",
    **{f"text_model.encoder.layers.N.{old}": f"transformer.resblocks.N.{new}" for old, new in _BLOCK.items()},
}

_CLIP = {
    **_TEXT,
    "text_projection.weight": "text_projection",
    "visual_projection.weight": "visual.proj",
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.": "visual.conv1.",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm.": "visual.ln_pre.",  # as `transformers` spells it
    "vision_model.post_layernorm.": "visual.ln_post.",
    **{f"vision_model.encoder.layers.N.{old}": f"visual.transformer.resblocks.N.{new}" for old, new in _BLOCK.items()},
}

_SIGLIP = {
    **{old: f"text.{new}" for old, new in _TEXT.items()},
    "text_model.head.": "text.text_projection.",
    "vision_model.embeddings.patch_embedding.": "visual.trunk.patch_embed.proj.",
    "vision_model.embeddings.position_embedding.weight": "visual.trunk.pos_embed",
    "vision_model.post_layernorm.": "visual.trunk.norm.",
    "vision_model.head.probe": "visual.trunk.attn_pool.latent",
    "vision_model.head.attention.q.": "visual.trunk.attn_pool.q.",
    "vision_model.head.attention.kv.": "visual.trunk.attn_pool.kv.",
    "vision_model.head.attention.out_proj.": "visual.trunk.attn_pool.proj.",
    "vision_model.head.layernorm.": "visual.trunk.attn_pool.norm.",
    "vision_model.head.mlp.": "visual.trunk.attn_pool.mlp.",
    **{f"vision_model.encoder.layers.N.{old}": f"visual.trunk.blocks.N.{new}" for old, new in _TIMM_BLOCK.items()},
}


def from_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a `CLIPModel` or `SiglipModel` of `transformers`; return any other state dict as it is.

    Tensors of unknown names keep them, so that loading names them.
    """
    if not any(key.startswith(("text_model.encoder.", "vision_model.encoder.")) for key in state):
        return state
    siglip = "vision_model.head.probe" in state
    state = _join_projections({key: t for key, t in state.items() if not key.endswith(".position_ids")})
    if siglip:
        return {_rename(key, _SIGLIP): tensor for key, tensor in _siglip_shapes(state).items()}
    for key in ("text_projection.weight", "visual_projection.weight"):
        if key in state:
            state[key] = state[key].mT
    return {_rename(key, _CLIP): tensor for key, tensor in state.items()}


def _rename(key: str, names: Mapping[str, str]) -> str:
    layer = re.search(r"\.layers\.(\d+)\.", key)
    general = key if layer is None else key.replace(layer[0], ".layers.N.", 1)
    for old, new in names.items():
        if general.startswith(old):
            renamed = new + general.removeprefix(old)
            return renamed if layer is None else renamed.replace(".N.", f".{layer[1]}.", 1)
    return key


def _join_projections(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Concatenate the weights and biases of queries, keys and values of each attention."""
    joined = dict(state)
    for key in state:
        match = re.fullmatch(r"(.+\.self_attn\.)q_proj\.(weight|bias)", key)
        if match is not None:
            parts = [f"{match[1]}{part}_proj.{match[2]}" for part in "qkv"]
            if all(part in state for part in parts):
                joined[f"{match[1]}in_proj_{match[2]}"] = torch.cat([joined.pop(part) for part in parts])
    return joined


def _siglip_shapes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Give SigLIP's tensors the shapes that they have in open_clip and timm."""
    shaped = {}
    for key, tensor in state.items():
        if key in ("logit_scale", "logit_bias"):
            shaped[key] = tensor.reshape(())
        elif key == "vision_model.embeddings.position_embedding.weight":
            shaped[key] = tensor[None]
        elif match := re.fullmatch(r"(vision_model\.head\.attention\.)in_proj_(weight|bias)", key):
            width = len(tensor) // 3
            shaped[f"{match[1]}q.{match[2]}"], shaped[f"{match[1]}kv.{match[2]}"] = tensor[:width], tensor[width:]
        else:
            shaped[key] = tensor
    return shaped
