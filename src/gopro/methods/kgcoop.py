"""KgCoOp: a learned context whose text features stay near those of the hand-written prompt."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.encode_text import encode_texts, make_prompts
from gopro.clip.similarity import similarity
from gopro.methods.base import Method, split_context_template, split_template
from gopro.methods.recipe import Recipe
from gopro.settings import settings


@settings
class KgCoOpConfig:
    """Settings of `kgcoop`."""

    template: str | None = None
    """The hand-written prompt to stay near, with {} for the class name; the data set's own if not given."""
    start: str = "a photo of a {}."
    """The words before {} are the context to start from; what follows {} stays fixed."""
    weight: float = 8.0
    """Weight of the distance between learned and hand-written prompt."""


class KgCoOp(Method):
    """Knowledge-guided Context Optimization (Yao, Zhang, Xu 2023, arXiv 2303.13283; repository htyao89/KgCoOp).

    Learned: the context vectors before the class name, one set for all classes. To CoOp's cross-entropy comes the
    mean over classes of 1 - cos between the text feature and that of the data set's hand-written prompt, by 8.
    Published Base/New/HM on 11 data sets, ViT-B/16: 80.73/73.60/77.00.

    A training step of the authors' code is reproduced (tests/golden). The recipe is the authors'; their layers that
    are neither trained nor used are left out. Their hand-written prompts are kept in their code, ours come with the
    data sets.
    """

    recipe = Recipe(optimizer="sgd", lr=2e-3, epochs=100, batch=128)
    config: KgCoOpConfig = KgCoOpConfig()

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: KgCoOpConfig):
        super().__init__(backbone, classnames, config)
        words, _ = split_context_template(config.start)
        self.context = nn.Parameter(backbone.text.embed(words))  # [M, d]

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        words, tail = split_context_template(self.config.start)
        text = self.backbone.text
        self.prompts = make_prompts(text, classnames, before=len(text.tokens(words)), tail=tail)
        before, behind = split_template(self.config.template or "a photo of a {}.")
        self.written = encode_texts(text, [f"{before} {name}{behind}".strip() for name in classnames])

    def class_vectors(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.prompts(self.context)

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        text = self.class_vectors()[0]
        distance = 1 - (text * self.written).sum(-1).mean()  # all are unit vectors
        logits = self.backbone.logit_scale * similarity(encoded[0].embedding, text)
        return {"ce": F.cross_entropy(logits, labels), "kg": self.config.weight * distance}
