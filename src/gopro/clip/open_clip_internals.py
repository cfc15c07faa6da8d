"""Everything that relies on open_clip's private or version-dependent parts.

open_clip documents how to create and run a model, not what a model is made of. The rest of the package reaches its
towers and tokenizers through this file, and the inside of a block through `faster_layers.frozen_block`, so these are
the files to check against a new open_clip. They are written for open_clip_torch 3.x.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import open_clip
import torch
from jaxtyping import Float
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH as DEFAULT_CONTEXT_LENGTH
from open_clip.tokenizer import HFTokenizer as HFTokenizer
from open_clip.transformer import QuickGELU as QuickGELU
from open_clip.transformer import ResidualAttentionBlock as ResidualAttentionBlock
from open_clip.transformer import VisionTransformer as VisionTransformer
from torch import Tensor, nn

from gopro.errors import InputError

TEXT_PARTS = ("text_projection", "positional_embedding", "token_embedding", "transformer", "ln_final")
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's own files hold beside the weights."""

MAX_CACHED_WORDS = 50_000


class BoundedCache(dict[str, str]):
    """A tokenizer's cache that stops growing at `MAX_CACHED_WORDS`.

    open_clip's tokenizer remembers how it split every word it has ever seen, which on a server grows without bound. The
    cache cannot be an LRU: it also holds the special tokens, which the tokenizer could not split if they were evicted,
    and threads look a word up in two steps, between which nothing may vanish.
    """

    def __setitem__(self, word: str, pieces: str) -> None:
        if len(self) < MAX_CACHED_WORDS:
            super().__setitem__(word, pieces)


def bound_cache(tokenizer: Any) -> None:
    """Keep a SimpleTokenizer's cache from growing without bound; other tokenizers keep no such cache."""
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        tokenizer.cache = BoundedCache(tokenizer.cache)


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """Return the token ids of a text without the tokens that surround it (start, end, padding)."""
    if hasattr(tokenizer, "encode"):  # SimpleTokenizer; HFTokenizer wraps another tokenizer instead
        return tokenizer.encode(text)
    return list(tokenizer.tokenizer(tokenizer.clean_fn(text), add_special_tokens=False).input_ids)


def build_openai_clip(state: dict[str, Tensor]) -> Any:
    """Build the CLIP whose weights a state dict in OpenAI's layout holds; all sizes are read off the tensors.

    This replaces open_clip's `build_model_from_openai_state_dict`, which its next release lacks, and does not round the
    weights to fp16 as that did.

    Raises:
        LookupError, RuntimeError, ValueError, TypeError: tensors are missing, superfluous or do not fit together.
    """
    width = state["ln_final.weight"].shape[0]
    text: dict[str, Any] = {
        "context_length": state["positional_embedding"].shape[0],
        "vocab_size": state["token_embedding.weight"].shape[0],
        "width": width,
        "heads": width // 64,
        "layers": len({key.split(".")[2] for key in state if key.startswith("transformer.resblocks")}),
    }
    embed_dim, image = state["text_projection"].shape[1], open_clip.CLIPVisionCfg(**_openai_image_config(state))
    model = open_clip.CLIP(embed_dim, image, open_clip.CLIPTextCfg(**text), quick_gelu=True)
    model.load_state_dict({key: tensor for key, tensor in state.items() if key not in NOT_WEIGHTS})
    return model


def _openai_image_config(state: dict[str, Tensor]) -> dict[str, Any]:
    if "visual.proj" in state:  # a ViT
        width, _, patch, _ = state["visual.conv1.weight"].shape
        side = _grid_side(state["visual.positional_embedding"])
        layers = sum(key.startswith("visual.") and key.endswith(".attn.in_proj_weight") for key in state)
        return {"layers": layers, "width": width, "patch_size": patch, "image_size": side * patch}
    stages = [{key.split(".")[2] for key in state if key.startswith(f"visual.layer{stage}")} for stage in (1, 2, 3, 4)]
    return {
        "layers": [len(blocks) for blocks in stages],
        "width": state["visual.layer1.0.conv1.weight"].shape[0],
        "image_size": 32 * _grid_side(state["visual.attnpool.positional_embedding"]),
    }


def _grid_side(positional_embedding: Tensor) -> int:
    """Return the side of the square grid of positions; the first position is the class token's."""
    positions = positional_embedding.shape[0] - 1
    side = round(positions**0.5)
    if side**2 != positions:
        raise ValueError(f"{positions} image positions are not a square grid")
    return side


def fit_text_layout(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the text tower's weights if the model has its text tower in a module of its own and the state has not."""
    if "positional_embedding" not in state or hasattr(model, "positional_embedding"):
        return state
    return {f"text.{key}" if key.startswith(TEXT_PARTS) else key: tensor for key, tensor in state.items()}


class TextParts(NamedTuple):
    """The parts of an open_clip text tower."""

    blocks: list[Any]
    token_embedding: nn.Embedding
    positional_embedding: Tensor
    ln_final: nn.Module
    projection: Tensor | nn.Linear | None
    mask: Tensor | None
    pool: str
    context_length: int


def text_parts(model: Any) -> TextParts:
    """Return the parts of a model's text tower.

    Raises:
        InputError: the tower is of a kind whose embeddings cannot be reached (a Hugging Face encoder) or that reads its
            features from an appended class token (CoCa).
    """
    text = model.text if hasattr(model, "text") else model
    if not hasattr(text, "token_embedding") or getattr(text, "cls_emb", None) is not None:
        raise InputError(
            f"the text tower {type(text).__name__} cannot take learned context; use a CLIP or SigLIP model of open_clip"
        )
    return TextParts(
        blocks=list(text.transformer.resblocks),
        token_embedding=text.token_embedding,
        positional_embedding=text.positional_embedding,
        ln_final=text.ln_final,
        projection=text.text_projection,
        mask=text.attn_mask,
        pool=getattr(text, "pool_type", None) or text.text_pool_type,
        context_length=text.context_length,
    )


def image_layers(visual: Any) -> list[nn.Module]:
    """Return the modules whose outputs are an image tower's layers: transformer blocks, or a ResNet's four stages.

    Raises:
        InputError: the tower is of an unknown kind.
    """
    if hasattr(visual, "transformer"):
        return list(visual.transformer.resblocks)
    if hasattr(visual, "layer4"):
        return [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
    trunk = getattr(visual, "trunk", None)  # a timm model: the ViT of SigLIP, the stages of a ConvNeXt
    for layers in ("blocks", "stages"):
        if hasattr(trunk, layers):
            return list(getattr(trunk, layers))
    raise InputError(
        f"cannot take layer statistics of the image tower {type(visual).__name__}: it has no layers of a known kind"
    )


def vit_tokens(visual: Any, images: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch tokens width"]:
    """Return the class token and patch tokens of a ViT, as they are before `ln_pre`."""
    patches = visual.conv1(images).flatten(2).mT
    class_token = visual.class_embedding.expand(images.shape[0], 1, -1)
    return torch.cat([class_token, patches], dim=1) + visual.positional_embedding


def vit_embedding(visual: Any, tokens: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch embed"]:
    """Return a ViT's image embedding from the output of its last block."""
    pooled, _ = visual._pool(tokens)
    return pooled @ visual.proj
