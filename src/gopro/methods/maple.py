"""MaPLe: prompts in both towers, those of the image tower made out of those of the text tower."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone
from gopro.methods.deep_prompts import DeepPrompts
from gopro.methods.recipe import Recipe
from gopro.settings import PositiveInt, settings


@settings
class MaPLeConfig:
    """Settings of `maple`."""

    template: str = "a photo of a {}."
    """The first words are the context to start from; those behind the learned tokens stay fixed."""
    tokens: PositiveInt = 2
    """Learned tokens a layer, in each tower."""
    depth: PositiveInt = 9
    """Layers with learned tokens of their own, at most as many as the shallower tower has."""


class MaPLe(DeepPrompts):
    """Multi-modal Prompt Learning (Khattak et al. 2023, arXiv 2210.03117; repository
    muzairkhattak/multimodal-prompt-learning). ViTs only.

    Learned: the first two tokens of the text prompt, those that replace them at the input of the next eight layers,
    and for each of these nine layers a linear map of its tokens to those of the image tower at the same layer, which
    stand behind the patches; 3,555,072 numbers on ViT-B/16. Published Base/New/HM on 11 data sets, ViT-B/16:
    82.28/75.14/78.55.

    Recipe and start are those of the authors' base-to-new runs: the first tokens from words, the deeper ones from
    N(0, 0.02²), the maps of all deeper layers from one draw. Their logits, loss, gradients and first steps are
    reproduced (tests/golden). Ours departs from their code in two places: a depth beyond the shallower tower's
    layers means that many, where theirs makes tokens that a tower never reads; the fixed words behind the name are the
    template's, not always a full stop.
    """

    recipe = Recipe(optimizer="sgd", lr=3.5e-3, epochs=5, batch=4)
    config: MaPLeConfig = MaPLeConfig()

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: MaPLeConfig):
        super().__init__(backbone, classnames, config)
        first, deeper = (nn.Linear(backbone.text.width, self.image_tower.width) for _ in range(2))
        self.couplings = nn.ModuleList([first, *(copy.deepcopy(deeper) for _ in self.deep)])

    def text_depth(self) -> int:
        return min(super().text_depth(), self.image_depth())

    def image_prompts(self) -> list[Float[Tensor, "tokens width"]]:
        return [couple(tokens) for couple, tokens in zip(self.couplings, (self.context, *self.deep), strict=True)]

    def losses(
        self, encoded: Float[Tensor, "views batch 3 size size"], labels: Int[Tensor, " batch"]
    ) -> dict[str, Tensor]:
        return {"ce": F.cross_entropy(self.logits(encoded[0]), labels)}
