"""StyLIP: a context generated from an image's style and content at every layer of the image tower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.methods.parts.conditional_prompts import ConditionalPrompts
from gopro.methods.recipe import Grid, Recipe
from gopro.methods.template import DEFAULT_TEMPLATE, split_context_template
from gopro.settings import PositiveInt, settings


@settings
class StyLIPConfig:
    """Settings of `stylip`."""

    template: str = DEFAULT_TEMPLATE
    """The words before {} initialise the style tokens; what follows {} stays fixed."""
    hidden: PositiveInt = 16
    """Dimension that the style and the content of each layer are projected to before the layers are concatenated."""


class StyLIP(ConditionalPrompts):
    """Multi-scale Style-conditioned Prompt Learning (Bose et al. 2024, arXiv 2302.09251; no repository of the authors
    was found, nor was the paper's body available).

    According to the abstract, style projectors compute an image's context tokens from its style at every layer of the
    image tower (mean and standard deviation of each channel over the tokens), a content projector adds its content at
    every layer (the mean), and all are trained by cross-entropy on frozen towers. Published Base/New/HM on 11 data
    sets, ViT-B/16, in GOPro's tables: 83.22/75.94/79.41.

    Everything the abstract leaves open is ours and cannot be checked. The statistics of each layer are normalised,
    projected to `hidden` numbers by a linear map per layer, and passed through a ReLU. Linear maps of all layers'
    numbers give the style tokens and one content token between them and the class name. These last maps are zero at
    initialisation, and their biases are the template's words and its last word once more. No image changes anything at
    first: the model equals zero-shot CLIP with the last word doubled.

    Learned: the maps, 936,832 parameters on ViT-B/16. The recipe is ours and not tuned, with a cosine stepped with
    every batch.
    """

    recipe = Recipe(optimizer="adamw", lr=1e-3, epochs=10, batch=32, schedule="step", drop_last=False)
    grid = Grid({"lr": (1e-4, 3e-4, 1e-3, 3e-3), "epochs": (5, 10, 20)})
    config: StyLIPConfig = StyLIPConfig()
    extra_tokens = 1  # the content token

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: StyLIPConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        words = backbone.text.embed(split_context_template(config.template)[0])  # [M, d]
        widths, joined = backbone.layer_widths, config.hidden * len(backbone.layer_widths)
        self.style = nn.ModuleList(nn.Linear(2 * width, config.hidden) for width in widths)
        self.content = nn.ModuleList(nn.Linear(width, config.hidden) for width in widths)
        self.style_tokens = _constant_at_init(words, joined)
        self.content_token = _constant_at_init(words[-1:], joined)

    def image_contexts(self, encoded: Encoded) -> Float[Tensor, "batch tokens width"]:
        """Return the style tokens of each image, then its content token."""
        widths = self.backbone.layer_widths
        means, stds = encoded.mean.split(widths, dim=-1), encoded.std.split(widths, dim=-1)
        styles = [torch.cat(pair, dim=-1) for pair in zip(means, stds, strict=True)]
        tokens = [self.style_tokens(_compress(self.style, styles)), self.content_token(_compress(self.content, means))]
        return torch.cat(tokens, dim=-1).unflatten(-1, (-1, self.backbone.text.width))


def _constant_at_init(words: Float[Tensor, "tokens width"], inputs: int) -> nn.Linear:
    """Return a linear map whose output is these tokens, flattened, for any input."""
    layer = nn.Linear(inputs, words.numel())
    nn.init.zeros_(layer.weight)
    layer.bias.data = words.detach().flatten().clone()
    return layer


def _compress(maps: nn.ModuleList, statistics: Sequence[Float[Tensor, "batch width"]]) -> Float[Tensor, "batch joined"]:
    """Normalise and project the statistics of each layer, and concatenate the results."""
    normed = [F.layer_norm(s, s.shape[-1:]) for s in statistics]
    return torch.cat([down(s).relu() for down, s in zip(maps, normed, strict=True)], dim=-1)
