"""SLIP: hand-written prompts, and a projection of the image features that self-supervision has a part in."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.similarity import similarity
from gopro.distributed import gather
from gopro.methods.base import Method
from gopro.methods.losses import nt_xent
from gopro.methods.recipe import Recipe
from gopro.methods.zero_shot_text import template_features
from gopro.settings import PositiveFloat, PositiveInt, settings


@settings
class SLIPConfig:
    """Settings of `slip`."""

    template: str | None = None
    """The prompt, with {} for the class name; the data set's own if not given."""
    rank: PositiveInt = 8
    """Rank of the projection."""
    ssl: float = 1.0
    """Weight of the self-supervised loss."""
    temperature: PositiveFloat = 0.1
    """Of the self-supervised loss."""


class SLIP(Method):
    """Self-supervision beside hand-written prompts, after SLIP (Mu et al. 2021, arXiv 2112.12750; repository
    facebookresearch/SLIP), the row of that name in GOPro's tables (Singha, Jha, Banerjee 2023, arXiv 2308.11605).

    SLIP pretrains CLIP with SimCLR's loss beside its own. What GOPro's tables call SLIP, on a frozen CLIP and few
    images, is not public, nor is code of it, so all but the idea is ours and there is nothing to check it against: a
    residual projection of low rank on the frozen image features, by cross-entropy against the features of the data
    set's hand-written prompt and SLIP's NT-Xent (weight 1, temperature 0.1) between two further views, strongly
    augmented. It takes what predicts, not a head beside it. The projection is zero at the start, which so is zero-shot
    CLIP. Learned: its two maps, 8,192 numbers on ViT-B/16. Published Base/New/HM on 11 data sets, ViT-B/16, of that
    row: 69.77/74.28/71.96. The recipe is ours.
    """

    views = ("base", "moco", "augmix")
    recipe = Recipe(optimizer="adamw", lr=1e-3, epochs=10, batch=32)
    config: SLIPConfig = SLIPConfig()

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: SLIPConfig):
        super().__init__(backbone, classnames, config)
        down = nn.Linear(backbone.embed_dim, config.rank, bias=False)
        up = nn.Linear(config.rank, backbone.embed_dim, bias=False)
        nn.init.zeros_(up.weight)
        self.project = nn.Sequential(down, up)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.text = template_features(self.backbone.text, classnames, self.config.template or "a photo of a {}.")

    def image_features(self, encoded: Encoded) -> Float[Tensor, "*batch embed"]:
        """Unit image features."""
        return F.normalize(encoded.embedding + self.project(encoded.embedding), dim=-1)

    def class_vectors(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.text[None]

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        image, one, other = self.image_features(encoded)
        logits = self.backbone.logit_scale * similarity(image, self.text)
        return {
            "ce": F.cross_entropy(logits, labels),
            "ssl": self.config.ssl * nt_xent(gather(one), gather(other), self.config.temperature),
        }
