"""The frozen image tower of a ViT, run with prompt tokens of one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor

from gopro.backbone import Backbone
from gopro.errors import InputError


class PromptedImageTower:
    """The image tower of a backbone, with gradients to the prompt tokens that it is given.

    As in visual prompt tuning (Jia et al. 2022, arXiv 2203.12119) as MaPLe and PromptSRC do it: the prompts stand
    behind the patches, have no positional embedding, go through the norm in front of the first block, and take no part
    in the pooling.

    Attributes:
        width: W, size of a token.
        layers: how many blocks there are.

    Raises:
        InputError: the tower is no ViT of open_clip's own (a ResNet, a timm model).
    """

    def __init__(self, backbone: Backbone):
        self._visual: Any = backbone.model.visual
        if not isinstance(self._visual, VisionTransformer):
            raise InputError(
                f"backbone {backbone.name!r}: its image tower {type(self._visual).__name__} takes no prompts; "
                "use a ViT such as ViT-B-16:openai, or another method"
            )
        self.width: int = self._visual.class_embedding.shape[0]
        self.layers = len(self._visual.transformer.resblocks)

    def __call__(
        self, images: Float[Tensor, "batch 3 size size"], prompts: Sequence[Float[Tensor, "tokens width"]]
    ) -> Float[Tensor, "batch embed"]:
        """Unit embeddings of preprocessed pictures.

        Args:
            prompts: what is added at the input of the first block, then for blocks 1, 2, ... what replaces it there;
                at least one, and no more than there are blocks. The last one goes on through the blocks that remain.
        """
        visual, batch = self._visual, len(images)
        patches = visual.conv1(images).flatten(2).mT
        x = torch.cat([visual.class_embedding.expand(batch, 1, -1), patches], dim=1) + visual.positional_embedding
        own = x.shape[1]
        x = visual.ln_pre(torch.cat([x, prompts[0].expand(batch, -1, -1)], dim=1))
        for layer, block in enumerate(visual.transformer.resblocks):
            if 0 < layer < len(prompts):
                x = torch.cat([x[:, :own], prompts[layer].to(x.dtype).expand(batch, -1, -1)], dim=1)
            x = block(x)
        pooled, _ = visual._pool(x[:, :own])
        return F.normalize((pooled @ visual.proj).float(), dim=-1)
