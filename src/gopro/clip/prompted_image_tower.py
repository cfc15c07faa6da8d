"""The frozen image tower of a ViT, run with prompt tokens of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.transformer import VisionTransformer
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.errors import InputError


class PromptedImageTower:
    """The image tower of a backbone, with gradients to the prompt tokens that it is given.

    As in visual prompt tuning (Jia et al. 2022, arXiv 2203.12119) as MaPLe and PromptSRC do it: the prompts stand
    behind the patches, have no positional embedding, go through the norm in front of the first block, and take no part
    in the pooling. Or, as MMRL does it, they are in the last blocks alone (`upper`).

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
        """Unit embeddings of preprocessed images.

        Args:
            prompts: what is added at the input of the first block, then for blocks 1, 2, ... what replaces it there;
                at least one, and no more than there are blocks. The last one goes on through the blocks that remain.
        """
        own = self._tokens(images)
        x = self._visual.ln_pre(_with(own, prompts[0]))
        own, _ = self._through(x, own.shape[1], dict(enumerate(prompts[1:], start=1)))
        return self._embedded(own)

    def upper(
        self, images: Float[Tensor, "batch 3 size size"], prompts: Sequence[Float[Tensor, "tokens width"]]
    ) -> tuple[Float[Tensor, "batch embed"], Float[Tensor, "batch width"]]:
        """Unit embeddings of preprocessed images with prompts in the last blocks alone, and what became of these.

        Args:
            prompts: what stands behind the patches at the input of as many of the last blocks, replaced at each.

        Returns: beside the embeddings, the mean of the prompts behind the final norm, not projected.
        """
        own = self._visual.ln_pre(self._tokens(images))
        at = dict(enumerate(prompts, start=self.layers - len(prompts)))
        own, rest = self._through(own, own.shape[1], at)
        return self._embedded(own), self._visual.ln_post(rest).mean(dim=1)

    def _tokens(self, images: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch own width"]:
        """The class token and the patches."""
        visual = self._visual
        patches = visual.conv1(images).flatten(2).mT
        first = visual.class_embedding.expand(images.shape[0], 1, -1)
        return torch.cat([first, patches], dim=1) + visual.positional_embedding

    def _through(
        self, x: Float[Tensor, "batch tokens width"], own: int, prompts: Mapping[int, Float[Tensor, "prompts width"]]
    ) -> tuple[Float[Tensor, "batch own width"], Float[Tensor, "batch prompts width"]]:
        """What the blocks make of the `own` first tokens of x and of the others, which `prompts` replace at blocks."""
        for layer, block in enumerate(self._visual.transformer.resblocks):
            if layer in prompts:
                x = _with(x[:, :own], prompts[layer].to(x.dtype))
            x = block(x)
        return x[:, :own], x[:, own:]

    def _embedded(self, own: Float[Tensor, "batch own width"]) -> Float[Tensor, "batch embed"]:
        pooled, _ = self._visual._pool(own)
        return F.normalize((pooled @ self._visual.proj).float(), dim=-1)


def _with(x: Float[Tensor, "batch own width"], prompts: Float[Tensor, "prompts width"]) -> Tensor:
    """The prompts behind the tokens x of every image."""
    return torch.cat([x, prompts.expand(x.shape[0], -1, -1)], dim=1)
