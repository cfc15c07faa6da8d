"""The kind of a backbone's image tower, found out without building the backbone."""

from __future__ import annotations

from typing import Any

import open_clip

from gopro.clip.weights.embedded import EMBEDDED
from gopro.clip.weights.load_embedded import read_metadata


def other_than_vit(name: str) -> str | None:
    """Say what image tower a backbone has if it is not open_clip's own ViT: `ResNet`, or timm's name of the model.

    Only such a ViT takes learned prompt tokens (`PromptedImageTower`).

    Args:
        name: of the backbone, as `load_backbone` takes it.

    Returns:
        None for a ViT, and for what only loading tells: an unknown name, or weights in OpenAI's layout.

    Example:
        >>> other_than_vit("RN50:openai"), other_than_vit("ViT-B-16-SigLIP:webli"), other_than_vit("emoji")
        ('ResNet', 'vit_base_patch16_siglip_224', None)
    """
    if name in EMBEDDED:
        config = read_metadata(name)["model_cfg"]
    else:
        config = open_clip.get_model_config(name.partition(":")[0]) or {}
    vision: dict[str, Any] = config.get("vision_cfg", {})
    if isinstance(vision.get("layers"), list):
        return "ResNet"
    return vision.get("timm_model_name")
