"""StyLIP: a context made of an image's style, and of its content, at every layer of the image tower."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.encode_text import make_prompts
from gopro.methods.base import Method, split_context_template
from gopro.methods.recipe import Recipe
from gopro.settings import PositiveInt, settings


@settings
class StyLIPConfig:
    """Settings of `stylip`."""

    template: str = "a photo of a {}."
    """The style tokens start from the words before {}; what follows {} stays fixed."""
    hidden: PositiveInt = 16
    """What a layer's style, and its content, is brought down to before the layers are joined."""


class StyLIP(Method):
    """Multi-scale Style-conditioned Prompt Learning (Bose et al. 2024, arXiv 2302.09251; no repository of the authors
    was found, nor was the paper's body available).

    As the abstract has it, style projectors make the context tokens of an image out of its style at every layer of the
    image tower, the mean and standard deviation of each channel over the tokens, and a content projector joins to them
    its content at every layer, the mean; all is trained by cross-entropy on frozen towers. Published Base/New/HM on 11
    data sets, ViT-B/16, in GOPro's tables: 83.22/75.94/79.41.

    Ours is all that this leaves open, and there is no code to check it against: a layer's statistics are normalised,
    brought down to `hidden` numbers by a linear map of the layer's own and put through a ReLU; linear maps of all
    layers' numbers together give the style tokens, in front of which nothing else is learned, and one content token
    that stands between them and the class name. Those last maps start at zero and their biases at the template's words
    and at its last word again, so that an image changes nothing at first: zero-shot CLIP but for one doubled word.
    Learned: the maps, 936,832 numbers on ViT-B/16. The recipe is ours too, and not tuned.
    """

    recipe = Recipe(optimizer="adamw", lr=1e-3, epochs=10, batch=32)
    config: StyLIPConfig = StyLIPConfig()

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: StyLIPConfig):
        super().__init__(backbone, classnames, config)
        words = backbone.text.embed(split_context_template(config.template)[0])  # [M, d]
        widths, joined = backbone.layer_widths, config.hidden * len(backbone.layer_widths)
        self.style = nn.ModuleList(nn.Linear(2 * width, config.hidden) for width in widths)
        self.content = nn.ModuleList(nn.Linear(width, config.hidden) for width in widths)
        self.style_tokens = _starting_at(words, joined)
        self.content_token = _starting_at(words[-1:], joined)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        words, tail = split_context_template(self.config.template)
        text = self.backbone.text
        self.prompts = make_prompts(text, classnames, before=len(text.tokens(words)) + 1, tail=tail)

    def image_contexts(self, encoded: Encoded) -> Float[Tensor, "batch tokens width"]:
        """The style tokens of each image and, behind them, its content token."""
        widths = self.backbone.layer_widths
        means, stds = encoded.mean.split(widths, dim=-1), encoded.std.split(widths, dim=-1)
        styles = [torch.cat(pair, dim=-1) for pair in zip(means, stds, strict=True)]
        tokens = [self.style_tokens(_joined(self.style, styles)), self.content_token(_joined(self.content, means))]
        return torch.cat(tokens, dim=-1).unflatten(-1, (-1, self.backbone.text.width))

    def class_vectors(self, contexts: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch classes embed"]:
        return self.prompts(contexts)

    def logits(self, encoded: Encoded) -> Float[Tensor, "batch classes"]:
        similarities = self.prompts.similarities(encoded.embedding, self.image_contexts(encoded))
        return self.backbone.logit_scale * similarities

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        return {"ce": F.cross_entropy(self.logits(encoded[0]), labels)}


def _starting_at(words: Float[Tensor, "tokens width"], inputs: int) -> nn.Linear:
    """A map to these tokens, laid end to end, whatever its inputs."""
    layer = nn.Linear(inputs, words.numel())
    nn.init.zeros_(layer.weight)
    layer.bias.data = words.detach().flatten().clone()
    return layer


def _joined(maps: nn.ModuleList, statistics: Sequence[Float[Tensor, "batch width"]]) -> Float[Tensor, "batch joined"]:
    """What the maps make of the statistics of their layers, side by side."""
    normed = [F.layer_norm(s, s.shape[-1:]) for s in statistics]
    return torch.cat([down(s).relu() for down, s in zip(maps, normed, strict=True)], dim=-1)
