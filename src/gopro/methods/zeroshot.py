"""Zero-shot CLIP: hand-written prompts, nothing learned."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from gopro.methods.base import Method
from gopro.methods.parts.zero_shot_text import Ensemble, zero_shot_text_features
from gopro.methods.recipe import Training
from gopro.settings import settings


@settings
class ZeroShotConfig:
    """Settings of `zeroshot`."""

    template: str | None = None
    """Prompt with {} for the class name; by default the data set's own."""
    ensemble: Ensemble = "none"
    """Average over CLIP's 7 or 80 templates for ImageNet instead of one template."""


class ZeroShot(Method):
    """CLIP without training (Radford et al. 2021, arXiv 2103.00020; repository openai/CLIP).

    Nothing is learned. Published Base/New/HM on 11 data sets, ViT-B/16, with each data set's own template:
    69.34/74.22/71.70. For the ensembles only ImageNet is published.
    """

    trained_by = Training.NONE
    config: ZeroShotConfig = ZeroShotConfig()

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        text, ensemble = self.backbone.text, self.config.ensemble
        self.text = zero_shot_text_features(text, classnames, self.zero_shot_template, ensemble)

    def text_features(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.text[None]
