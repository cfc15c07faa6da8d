"""MaPLe: prompts in both towers; those of the image tower are computed from those of the text tower."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from gopro.clip.backbone import Backbone
from gopro.methods.parts.deep_prompts import DeepPrompts
from gopro.methods.recipe import Grid, Recipe, Repository, Variant
from gopro.methods.template import DEFAULT_TEMPLATE
from gopro.settings import PositiveInt, settings


@settings
class MaPLeConfig:
    """Settings of `maple`."""

    template: str = DEFAULT_TEMPLATE
    """The first words initialise the context; those after the learned tokens stay fixed."""
    tokens: PositiveInt = 2
    """Learned tokens per layer, in each tower."""
    depth: PositiveInt = 9
    """Layers with learned tokens of their own; at most the layers of the shallower tower."""


class MaPLe(DeepPrompts):
    """Multi-modal Prompt Learning (Khattak et al. 2023, arXiv 2210.03117; repository
    muzairkhattak/multimodal-prompt-learning). ViTs only.

    Learned: the first two tokens of the text prompt, the tokens that replace them at the input of the next eight
    layers, and for each of these nine layers a linear map from its tokens to those of the image tower at the same
    layer, which follow the patches; 3,555,072 parameters on ViT-B/16. Published Base/New/HM on 11 data sets, ViT-B/16:
    82.28/75.14/78.55.

    Recipes and initialisation are the authors': Dassl's schedule, a cosine stepped once an epoch; the first tokens from
    words, the deeper ones from N(0, 0.02²), the maps of all deeper layers as copies of one. A training step and a whole
    training by their code are reproduced (tests/golden). Differences from their code: a depth beyond the layers of the
    shallower tower is cut to that number, where theirs creates tokens that a tower never reads; what follows the class
    name is the template's, not always a full stop.
    """

    recipe = Recipe(optimizer="sgd", lr=3.5e-3, epochs=5, batch=4)
    variants = (
        Variant(
            tasks=("transfer",),
            recipe={"lr": 2.6e-3, "epochs": 2},
            settings={"depth": 3},
            source="configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx_cross_datasets.yaml",
        ),
    )
    repository = Repository(
        name="muzairkhattak/multimodal-prompt-learning",
        commit="69bce21ae8eda80ad6187534b2dce09cf6c59e17",
        files={
            "base-to-new": "configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx.yaml",
            "transfer": "configs/trainers/MaPLe/vit_b16_c2_ep5_batch4_2ctx_cross_datasets.yaml",
        },
    )
    grid = Grid({"lr": (1e-3, 3.5e-3, 1e-2), "epochs": (5, 10), "depth": (3, 9)})
    config: MaPLeConfig = MaPLeConfig()

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: MaPLeConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        first, deeper = (nn.Linear(backbone.text.width, self.image_tower.width) for _ in range(2))
        self.couplings = nn.ModuleList([first, *(copy.deepcopy(deeper) for _ in self.deep)])

    def text_depth(self) -> int:
        return min(super().text_depth(), self.image_depth())

    def image_prompts(self) -> list[Float[Tensor, "tokens width"]]:
        return [couple(tokens) for couple, tokens in zip(self.couplings, (self.context, *self.deep), strict=True)]
