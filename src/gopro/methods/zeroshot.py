"""Zero-shot CLIP: hand-written prompts, nothing learned."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor

from gopro.methods.base import Method
from gopro.methods.recipe import Training
from gopro.methods.zero_shot_text import Ensemble, template_features
from gopro.settings import settings


@settings
class ZeroShotConfig:
    """Settings of `zeroshot`."""

    template: str | None = None
    """The prompt, with {} for the class name; the data set's own if not given."""
    ensemble: Ensemble = "none"
    """The mean over CLIP's 7 or 80 templates for ImageNet in the place of the one template."""


class ZeroShot(Method):
    """CLIP as it is (Radford et al. 2021, arXiv 2103.00020; repository openai/CLIP), with one template or several.

    Nothing is learned. Published Base/New/HM on 11 data sets, ViT-B/16, with each data set's own template:
    69.34/74.22/71.70. The ensembles are published for ImageNet alone.
    """

    trained_by = Training.NONE
    config: ZeroShotConfig = ZeroShotConfig()

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        template = self.config.template or "a photo of a {}."
        self.text = template_features(self.backbone.text, classnames, template, self.config.ensemble)

    def class_vectors(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.text[None]
