"""Base of the methods that learn tokens in both towers and replace them layer by layer."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gopro.clip.backbone import Backbone
from gopro.clip.prompted_image_tower import PromptedImageTower
from gopro.clip.text.encode import make_prompts
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.template import DEFAULT_TEMPLATE, split_context_tokens

STD = 0.02
"""Standard deviation of random initial tokens."""


class DeepConfig(Protocol):
    """The settings that these methods share."""

    @property
    def template(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def depth(self) -> int: ...


class DeepPrompts(Method):
    """A method whose first text tokens are learned and replaced at the input of further layers by other learned ones.

    The tokens of the image tower come from `image_prompts`, which a subclass defines.

    Raises:
        InputError: the image tower is not open_clip's own ViT, or no word of the template ends with the last learned
            token.
    """

    frozen_images = False
    needs_vit = True
    config: DeepConfig

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: DeepConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        self.image_tower = PromptedImageTower(backbone)
        words, _, _ = split_context_tokens(config.template, config.tokens, backbone.text)
        deeper = self.text_depth() - 1
        self.context = nn.Parameter(backbone.text.embed(words))  # [M, d]
        self.deep = nn.Parameter(STD * torch.randn(deeper, config.tokens, backbone.text.width))

    def text_depth(self) -> int:
        """Return the number of layers of the text tower with tokens of their own."""
        return min(self.config.depth, len(self.backbone.text.blocks))

    def image_depth(self) -> int:
        """Return the number of layers of the image tower with tokens of their own."""
        return min(self.config.depth, self.image_tower.layers)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        text = self.backbone.text
        for name in classnames:
            if not text.tokens(name):  # the fixed words before the name would make the prompt look complete
                raise InputError(f"class name {name!r} has no token: give it a name in words")
        _, fixed, tail = split_context_tokens(self.config.template, self.config.tokens, text)
        names = [f"{fixed} {name}".strip() for name in classnames]
        self.prompts = make_prompts(text, names, before=self.config.tokens, tail=tail)

    @abstractmethod
    def image_prompts(self) -> Sequence[Float[Tensor, "tokens width"]]:
        """Return the tokens of the image tower, layer by layer."""

    def text_features(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.prompts(self.context, deep=tuple(self.deep))

    def image_features(self, encoded: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch embed"]:
        return self.image_tower(encoded, self.image_prompts())
