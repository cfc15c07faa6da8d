"""The frozen image tower of a ViT, run with learned prompt tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.clip.open_clip_internals import VisionTransformer, vit_embedding, vit_tokens
from gopro.errors import InputError


class PromptedImageTower:
    """The image tower of a backbone with learned prompt tokens, to which it passes gradients.

    Prompts are appended to the patch tokens, have no positional embedding and do not take part in the pooling. A call
    adds them before the first block, as MaPLe and PromptSRC do (visual prompt tuning, Jia et al. 2022, arXiv
    2203.12119); `upper` adds them in the last blocks only, as MMRL does.

    Attributes:
        width: W, the size of a token.
        layers: the number of blocks.

    Raises:
        InputError: the image tower is not open_clip's own ViT (but a ResNet or a timm model).
    """

    def __init__(self, backbone: Backbone):
        self._visual: Any = backbone.model.visual
        self._to_features = backbone.to_features
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
        """Return unit embeddings of preprocessed images.

        Args:
            prompts: the first are appended before the first block; those that follow replace them at the input of
                blocks 1, 2, ... and the last ones pass through all remaining blocks. Give at least one and at most
                one per block.
        """
        own = vit_tokens(self._visual, images)
        x = self._visual.ln_pre(_append(own, prompts[0]))
        own, _ = self._run_blocks(x, own.shape[1], dict(enumerate(prompts[1:], start=1)))
        return self._embed(own)

    def upper(
        self, images: Float[Tensor, "batch 3 size size"], prompts: Sequence[Float[Tensor, "tokens width"]]
    ) -> tuple[Float[Tensor, "batch embed"], Float[Tensor, "batch width"]]:
        """Return unit embeddings of preprocessed images with prompts in the last blocks only, and the prompts' output.

        Args:
            prompts: one entry for each of the last blocks, at whose input they are appended, or replace the previous.

        Returns:
            The embeddings, and the mean over the prompt tokens after the final norm, not projected.
        """
        own = self._visual.ln_pre(vit_tokens(self._visual, images))
        at = dict(enumerate(prompts, start=self.layers - len(prompts)))
        own, outputs = self._run_blocks(own, own.shape[1], at)
        return self._embed(own), self._visual.ln_post(outputs).mean(dim=1)

    def _run_blocks(
        self, x: Float[Tensor, "batch tokens width"], own: int, prompts: Mapping[int, Float[Tensor, "prompts width"]]
    ) -> tuple[Float[Tensor, "batch own width"], Float[Tensor, "batch prompts width"]]:
        """Run the blocks; `prompts` replace all but the first `own` tokens at the blocks that they are keyed by."""
        for layer, block in enumerate(self._visual.transformer.resblocks):
            if layer in prompts:
                x = _append(x[:, :own], prompts[layer].to(x.dtype))
            x = block(x)
        return x[:, :own], x[:, own:]

    def _embed(self, own: Float[Tensor, "batch own width"]) -> Float[Tensor, "batch embed"]:
        return self._to_features(vit_embedding(self._visual, own))


def _append(x: Float[Tensor, "batch own width"], prompts: Float[Tensor, "prompts width"]) -> Tensor:
    """Append the prompts to the tokens of every image."""
    return torch.cat([x, prompts.expand(x.shape[0], -1, -1)], dim=1)
