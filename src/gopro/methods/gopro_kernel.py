"""GOPro as this package trained it before its present form, so that runs of it load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.similarity import similarity
from gopro.distributed import gather
from gopro.methods.gopro_paper import GOProPaper, GOProPaperConfig
from gopro.methods.parts.kernel_residual import KernelResidual
from gopro.methods.parts.losses import prompt_consistency
from gopro.methods.parts.ood_gate import OODGate
from gopro.methods.recipe import Grid, Recipe
from gopro.methods.template import DEFAULT_TEMPLATE
from gopro.settings import NonNegativeFloat, PositiveInt, settings

SHARPNESS = 20.0
"""Decay of the text projector's corrections, exp(-20 (1 - cos)): 0.14 of a correction is left at a cosine of 0.9."""


@settings
class GOProKernelConfig(GOProPaperConfig):
    """Settings of `gopro-kernel`."""

    template: str | None = None
    rank: PositiveInt | None = 8
    text_projector: Literal["kernel", "linear"] = "kernel"
    """One correction per trained class that decays with the distance from it, or a linear map of all text features."""
    sem: float = 10.0
    sem_classes: PositiveInt | None = 8
    con: float = 0.3
    ce_views: float = 0.3
    """Weight of the cross-entropy of the other views' image features, with the text features of the plain view."""
    anchor_image: float = 64.0
    """Weight of 1 - cos between the image features and frozen CLIP's."""
    anchor_text: float = 128.0
    """Weight of 1 - cos between the text features and frozen CLIP's."""
    fade: NonNegativeFloat = 3.0
    """Exponent of the out-of-distribution gate, which leaves images unlike the training images to frozen CLIP: the
    larger, the more images. 0 turns the gate off."""


class GOProKernel(GOProPaper):
    """The former `gopro`, until November 2026 (Singha, Jha, Banerjee, BMVC 2023, arXiv 2308.11605, with additions).

    It is here so that runs of it load, and to compare with; use `gopro`. Unlike `gopro-paper` it has a
    text projector that corrects each trained class and decays away from it (`KernelResidual`), a gate that leaves
    out-of-distribution images to zero-shot CLIP (`OODGate`), the cross-entropy of the other views, two losses that keep
    features near frozen CLIP's, maps of low rank, and five epochs of AdamW with a cosine stepped with every batch.

    `gopro` has other parts because these take cosines for distances: in the cone of CLIP's features neither the kernel
    nor the gate decays. Results on the embedded benchmark (4 shots, 5 seeds): base/new/HM
    72.9/43.9/54.8, on other data sets 34.9, in other styles 50.2.
    """

    recipe = Recipe(optimizer="adamw", lr=1e-3, epochs=5, batch=4, warmup=0.25, schedule="step", drop_last=False)
    repository = None
    grid = Grid({"lr": (3e-4, 1e-3, 3e-3), "epochs": (5, 10), "fade": (1.0, 3.0)})
    config: GOProKernelConfig = GOProKernelConfig()

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: GOProKernelConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        if config.fade:
            self.familiarity = OODGate(len(classnames), backbone.embed_dim)

    def make_text_projector(self, dim: int) -> nn.Module:
        if self.config.text_projector == "kernel":
            return KernelResidual(self.frozen_text(), SHARPNESS)
        return super().make_text_projector(dim)

    def image_vectors(self, encoded: Encoded) -> Float[Tensor, "batch dim"]:
        """Return the image features; with `fade` times the gate, then frozen CLIP's times what is left of 1."""
        image = self.image_features(encoded)
        if not self.config.fade:
            return image
        gate = self._gate(encoded)
        return torch.cat([gate * image, (1 - gate) * encoded.embedding], dim=-1)

    def class_vectors(self, contexts: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch classes dim"]:
        """Return the text features; with `fade`, then frozen CLIP's."""
        text = self.text_features(contexts)
        if not self.config.fade:
            return text
        return torch.cat([text, self.frozen_text().expand(len(text), -1, -1)], dim=-1)

    def logits(self, encoded: Encoded) -> Float[Tensor, "batch classes"]:
        similarities = self.similarities(encoded)
        if self.config.fade:
            gate = self._gate(encoded)
            similarities = gate * similarities + (1 - gate) * similarity(encoded.embedding, self.frozen_text())
        return self.backbone.logit_scale * similarities

    def _gate(self, encoded: Encoded) -> Float[Tensor, "batch 1"]:
        """Return the weight of the learned prediction against frozen CLIP's, between 0 and 1."""
        return self.familiarity(encoded.embedding)[..., None] ** self.config.fade

    def added_losses(
        self,
        encoded: Encoded,
        labels: Int[Tensor, " batch"],
        image: Float[Tensor, "views batch embed"],
        text: Float[Tensor, "batch classes embed"],
    ) -> dict[str, Tensor]:
        config, scale, terms = self.config, self.backbone.logit_scale, {}
        if config.fade and self.training:
            self.familiarity.add(gather(encoded.embedding[0]), gather(labels))
        if config.ce_views:
            entropies = [F.cross_entropy(scale * similarity(other, text), labels) for other in image[1:]]
            terms["ce_views"] = config.ce_views * torch.stack(entropies).mean()
        if config.anchor_image:
            terms["anchor_image"] = config.anchor_image * prompt_consistency(image, encoded.embedding)
        if config.anchor_text:
            terms["anchor_text"] = config.anchor_text * prompt_consistency(text, self.frozen_text())
        return terms
