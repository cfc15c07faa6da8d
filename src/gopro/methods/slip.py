"""SLIP: hand-written prompts, and a projection of the image features trained with self-supervision."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.similarity import similarity
from gopro.distributed import gather
from gopro.methods.base import Method
from gopro.methods.parts.losses import nt_xent
from gopro.methods.parts.zero_shot_text import zero_shot_text_features
from gopro.methods.recipe import Grid, Recipe
from gopro.methods.template import DEFAULT_TEMPLATE
from gopro.settings import PositiveFloat, PositiveInt, settings


@settings
class SLIPConfig:
    """Settings of `slip`."""

    template: str | None = None
    """Prompt with {} for the class name; by default the data set's own."""
    rank: PositiveInt = 8
    """Rank of the projection."""
    ssl: float = 1.0
    """Weight of the self-supervised loss."""
    temperature: PositiveFloat = 0.1
    """Temperature of the self-supervised loss."""


class SLIP(Method):
    """Self-supervision with hand-written prompts, after SLIP (Mu et al. 2021, arXiv 2112.12750; repository
    facebookresearch/SLIP): the row of that name in GOPro's tables (Singha, Jha, Banerjee 2023, arXiv 2308.11605).

    SLIP pretrains CLIP with SimCLR's loss beside CLIP's own. The SLIP of GOPro's tables, on a frozen CLIP with few
    images, is described nowhere and has no public code, so everything but the idea is ours and cannot be checked: a
    residual projection of low rank on the frozen image features, trained by cross-entropy against the data set's
    hand-written prompts and by SLIP's NT-Xent (weight 1, temperature 0.1) between two strongly augmented views.
    NT-Xent is applied to the features that predict, not to a separate head. The projection is zero at initialisation,
    which equals zero-shot CLIP.

    Learned: its two maps, 8,192 parameters on ViT-B/16. Published Base/New/HM of that row on 11 data sets, ViT-B/16:
    69.77/74.28/71.96. The recipe is ours, with a cosine stepped with every batch.
    """

    views = ("base", "moco", "augmix")
    recipe = Recipe(optimizer="adamw", lr=1e-3, epochs=10, batch=32, schedule="step", drop_last=False)
    grid = Grid({"lr": (3e-4, 1e-3, 3e-3), "epochs": (10, 30), "ssl": (0.1, 1.0)})
    config: SLIPConfig = SLIPConfig()

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: SLIPConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        down = nn.Linear(backbone.embed_dim, config.rank, bias=False)
        up = nn.Linear(config.rank, backbone.embed_dim, bias=False)
        nn.init.zeros_(up.weight)
        self.project = nn.Sequential(down, up)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.text = zero_shot_text_features(self.backbone.text, classnames, self.zero_shot_template)

    def image_features(self, encoded: Encoded) -> Float[Tensor, "*batch embed"]:
        return F.normalize(encoded.embedding + self.project(encoded.embedding), dim=-1)

    def text_features(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.text[None]

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        image, moco, augmix = self.image_features(encoded)
        logits = self.backbone.logit_scale * similarity(image, self.text)
        return {
            "ce": F.cross_entropy(logits, labels),
            "ssl": self.config.ssl * nt_xent(gather(moco), gather(augmix), self.config.temperature),
        }
