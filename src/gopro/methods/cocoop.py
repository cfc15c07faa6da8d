"""CoCoOp: a learned context that each image shifts."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.methods.parts.conditional_prompts import ConditionalPrompts
from gopro.methods.recipe import Grid, Recipe, Repository
from gopro.methods.template import DEFAULT_TEMPLATE, split_context_template
from gopro.settings import settings


@settings
class CoCoOpConfig:
    """Settings of `cocoop`."""

    template: str = DEFAULT_TEMPLATE
    """The words before {} initialise the context; what follows {} stays fixed."""


class CoCoOp(ConditionalPrompts):
    """Conditional Context Optimization (Zhou et al. 2022, arXiv 2203.05557; repository KaiyangZhou/CoOp).

    Learned: the context vectors before the class name, shared by all classes, and the meta net. From an image's unit
    embedding it computes one shift of all context vectors, by a linear map to D/16, ReLU and a linear map to d.
    Published Base/New/HM on 11 data sets, ViT-B/16: 80.47/71.69/75.83.

    A training step and a whole training by the authors' code are reproduced (tests/golden). One difference from it:
    what follows the class name is the template's, not always a full stop. The recipe is the authors', with Dassl's
    schedule, a cosine stepped once an epoch; their batch of one image is what fitted in their memory, not a need of the
    method.
    """

    recipe = Recipe(optimizer="sgd", lr=2e-3, epochs=10, batch=1)
    repository = Repository(
        name="KaiyangZhou/CoOp",
        commit="ff61507c790454bce7c5052c3ac39e60772f1f89",
        files={
            "base-to-new": "configs/trainers/CoCoOp/vit_b16_c4_ep10_batch1_ctxv1.yaml",
            "transfer": "scripts/cocoop/xd_train.sh",
        },
    )
    grid = Grid({"lr": (5e-4, 2e-3, 5e-3, 2e-2), "epochs": (5, 10, 20)})
    config: CoCoOpConfig = CoCoOpConfig()

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: CoCoOpConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        words, _ = split_context_template(config.template)
        self.context = nn.Parameter(backbone.text.embed(words))  # [M, d]
        hidden = backbone.embed_dim // 16
        layers = {
            "linear1": nn.Linear(backbone.embed_dim, hidden),
            "relu": nn.ReLU(),
            "linear2": nn.Linear(hidden, backbone.text.width),
        }
        self.meta_net = nn.Sequential(OrderedDict(layers))

    def image_contexts(self, encoded: Encoded) -> Float[Tensor, "batch tokens width"]:
        return self.context + self.meta_net(encoded.embedding)[:, None]
