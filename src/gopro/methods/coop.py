"""CoOp: one learned context for all images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gopro.clip.backbone import Backbone
from gopro.clip.text.encode import make_prompts
from gopro.methods.base import Method
from gopro.methods.recipe import Grid, Recipe, Repository, Variant
from gopro.methods.template import DEFAULT_TEMPLATE, split_context_template, split_template
from gopro.settings import PositiveInt, settings


@settings
class CoOpConfig:
    """Settings of `coop`."""

    template: str = DEFAULT_TEMPLATE
    """The words before {} initialise the context; what follows {} stays fixed."""
    tokens: PositiveInt | None = None
    """Length of a context that is initialised at random instead of from the template's words."""
    csc: bool = False
    """Class-specific context: one context per class, which cannot classify a class that was not trained on."""
    position: Literal["end", "middle", "front"] = "end"
    """Position of the class name: after the context, between its halves, or before it."""


class CoOp(Method):
    """Context Optimization (Zhou et al. 2022, arXiv 2109.01134; repository KaiyangZhou/CoOp).

    Learned: the context vectors, [tokens, d] for all classes or [classes, tokens, d]. The defaults are those of
    CoCoOp's base-to-new comparison: one context initialised from words, with the class name at its end. Published
    Base/New/HM on 11 data sets, ViT-B/16: 82.69/63.22/71.66.

    A training step of the authors' code is reproduced for each setting (tests/golden). Differences from it:
    class-specific context may also be initialised from words; what follows the class name is the template's, not always
    a full stop. The recipes are the authors', with Dassl's schedule, a cosine stepped once an epoch; the context starts
    from words in base-to-new and transfer (`tokens=null`), and from 16 random vectors in few-shot, whatever the
    template.
    """

    recipe = Recipe(optimizer="sgd", lr=2e-3, epochs=200, batch=32)
    variants = (
        Variant(tasks=("transfer",), recipe={"epochs": 50}, source="configs/trainers/CoOp/vit_b16_ep50_ctxv1.yaml"),
        Variant(tasks=("few-shot",), settings={"tokens": 16}, source="COOP.md"),
        Variant(tasks=("few-shot",), shots=(1,), recipe={"epochs": 50}, source="COOP.md"),
        Variant(tasks=("few-shot",), shots=(2, 3, 4), recipe={"epochs": 100}, source="COOP.md"),
        Variant(tasks=("few-shot",), data=("imagenet",), recipe={"epochs": 50}, source="COOP.md"),
        Variant(
            tasks=("base-to-new",), data=("imagenet",), recipe={"epochs": 50}, source="scripts/cocoop/base2new_train.sh"
        ),
    )
    repository = Repository(
        name="KaiyangZhou/CoOp",
        commit="ff61507c790454bce7c5052c3ac39e60772f1f89",
        files={
            "base-to-new": "configs/trainers/CoOp/vit_b16_ctxv1.yaml",
            "transfer": "scripts/cocoop/xd_train.sh",
            "few-shot": "configs/trainers/CoOp/vit_b16.yaml",
        },
    )
    grid = Grid({"lr": (5e-4, 2e-3, 1e-2, 5e-2), "epochs": (50, 100, 200)})
    config: CoOpConfig = CoOpConfig()

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: CoOpConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        text = backbone.text
        if config.tokens is None:
            context = text.embed(split_context_template(config.template)[0])
        else:
            context = 0.02 * torch.randn(*([len(classnames)] if config.csc else []), config.tokens, text.width)
        if config.csc:
            context = context.expand(len(classnames), -1, -1).clone()
        self.context = nn.Parameter(context)  # [M, d] or [C, M, d]

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        config, text = self.config, self.backbone.text
        if config.csc:
            reason = "class-specific context cannot be carried to other class names; use coop without csc"
            self.rows = self.require_trained_rows(classnames, reason)
        if config.tokens is None:
            words, tail = split_context_template(config.template)
            length = len(text.tokens(words))
        else:
            length, (_, tail) = config.tokens, split_template(config.template)
        self.before = {"end": length, "middle": length // 2, "front": 0}[config.position]
        self.prompts = make_prompts(text, classnames, before=self.before, after=length - self.before, tail=tail)

    def text_features(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        context = self.context[self.rows][None] if self.config.csc else self.context
        return self.prompts(context[..., : self.before, :], context[..., self.before :, :])
