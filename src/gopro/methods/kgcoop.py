"""KgCoOp: a learned context whose text features stay near those of the hand-written prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.similarity import similarity
from gopro.clip.text.encode import make_prompts
from gopro.methods.base import Method
from gopro.methods.parts.zero_shot_text import zero_shot_text_features
from gopro.methods.recipe import Grid, Recipe, Repository, Variant
from gopro.methods.template import DEFAULT_TEMPLATE, split_context_template
from gopro.settings import settings


@settings
class KgCoOpConfig:
    """Settings of `kgcoop`."""

    template: str | None = None
    """Hand-written prompt to stay near, with {} for the class name; by default the data set's own, on DTD the
    authors'."""
    start: str = DEFAULT_TEMPLATE
    """The words before {} initialise the context; what follows {} stays fixed."""
    weight: float = 8.0
    """Weight of the distance between learned and hand-written prompt."""


class KgCoOp(Method):
    """Knowledge-guided Context Optimization (Yao, Zhang, Xu 2023, arXiv 2303.13283; repository htyao89/KgCoOp).

    Learned: the context vectors before the class name, shared by all classes. To CoOp's cross-entropy it adds 8 times
    the mean over classes of 1 - cos between the text feature and that of the data set's hand-written prompt.
    Published Base/New/HM on 11 data sets, ViT-B/16: 80.73/73.60/77.00.

    A training step and a whole training by the authors' code are reproduced (tests/golden), with the authors' recipe
    and Dassl's schedule, a cosine stepped once an epoch. Differences from their code: layers that it neither trains nor
    uses are left out. Their hand-written prompts are the data sets' own, save that of DTD.
    """

    recipe = Recipe(optimizer="sgd", lr=2e-3, epochs=100, batch=128)
    variants = (
        Variant(
            data=("dtd",),
            settings={"template": "a photo of a {}, a type of texture."},
            source="KgCoOp/trainers/kgcoop.py",
        ),
    )
    repository = Repository(
        name="htyao89/KgCoOp",
        commit="c43ccc32c8739f64b165cfa205fcc6c0f5bb5b17",
        files={
            "base-to-new": "KgCoOp/configs/trainers/KgCoOp/vit_b16_ep100_ctxv1.yaml",
            "transfer": "KgCoOp/scripts/xd_train.sh",
            "few-shot": "KgCoOp/scripts/xd_train.sh",
        },
    )
    grid = Grid({"lr": (2e-3, 1e-2, 5e-2), "epochs": (50, 100), "weight": (2.0, 8.0)})
    config: KgCoOpConfig = KgCoOpConfig()

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: KgCoOpConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        words, _ = split_context_template(config.start)
        self.context = nn.Parameter(backbone.text.embed(words))  # [M, d]

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        words, tail = split_context_template(self.config.start)
        text = self.backbone.text
        self.prompts = make_prompts(text, classnames, before=len(text.tokens(words)), tail=tail)
        self.zero_shot_text = zero_shot_text_features(text, classnames, self.zero_shot_template)

    def text_features(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.prompts(self.context)

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        text = self.text_features()[0]
        distance = 1 - (text * self.zero_shot_text).sum(-1).mean()  # unit vectors: their products are cosines
        logits = self.backbone.logit_scale * similarity(encoded[0].embedding, text)
        return {"ce": F.cross_entropy(logits, labels), "kg": self.config.weight * distance}
