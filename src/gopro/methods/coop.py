"""CoOp: one learned context for all pictures and classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.backbone import Backbone, Encoded
from gopro.methods.base import Method, Recipe, split_context_template
from gopro.text import make_prompts


@dataclass(frozen=True)
class CoOpConfig:
    """Settings of `coop`."""

    template: str = "a photo of a {}."
    """The words before {} are the context to start from; what follows {} stays fixed."""


class CoOp(Method):
    """Context Optimization (Zhou et al. 2022, arXiv 2109.01134; repository KaiyangZhou/CoOp).

    Learned: the context vectors before the class name, one set for all classes, from a written start, as CoOp is run
    in the base-to-new comparison of CoCoOp. Published Base/New/HM on 11 data sets, ViT-B/16: 82.69/63.22/71.66.
    """

    recipe = Recipe(optimizer="sgd", lr=2e-3, epochs=50, batch=32)
    config: CoOpConfig

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: CoOpConfig):
        super().__init__(backbone, classnames, config)
        words, _ = split_context_template(config.template)
        self.context = nn.Parameter(backbone.text.embed(words))  # [M, d]

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        words, tail = split_context_template(self.config.template)
        text = self.backbone.text
        self.prompts = make_prompts(text, classnames, before=len(text.tokens(words)), tail=tail)

    def logits(self, encoded: Encoded) -> Float[Tensor, "batch classes"]:
        return self.backbone.logit_scale * encoded.embedding @ self.prompts(self.context)[0].T

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        return {"ce": F.cross_entropy(self.logits(encoded[0]), labels)}
