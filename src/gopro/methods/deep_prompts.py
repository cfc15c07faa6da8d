"""What methods with learned tokens in both towers, replaced layer by layer, have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gopro.clip.backbone import Backbone
from gopro.clip.encode_text import make_prompts
from gopro.clip.prompted_image_tower import PromptedImageTower
from gopro.errors import InputError
from gopro.methods.base import Method, split_context_tokens

STD = 0.02
"""Standard deviation that tokens without a written start are drawn with."""


class DeepConfig(Protocol):
    """The settings that these methods share."""

    @property
    def template(self) -> str: ...
    @property
    def tokens(self) -> int: ...
    @property
    def depth(self) -> int: ...


class DeepPrompts(Method):
    """Text prompts whose first tokens are learned, and replaced by other learned ones at the input of further layers;
    image prompts of which a method says where they come from.

    Raises:
        InputError: the backbone's image tower is no ViT of open_clip's own; a depth below 1; a template of which no
            word ends with the last learned token.
    """

    frozen_images = False
    config: DeepConfig

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: DeepConfig):
        super().__init__(backbone, classnames, config)
        self.image_tower = PromptedImageTower(backbone)
        words, _, _ = split_context_tokens(config.template, config.tokens, backbone.text)
        deeper = self.text_depth() - 1
        self.context = nn.Parameter(backbone.text.embed(words))  # [M, d]
        self.deep = nn.Parameter(STD * torch.randn(deeper, config.tokens, backbone.text.width))

    def text_depth(self) -> int:
        """Layers of the text tower with tokens of their own."""
        return min(self.config.depth, len(self.backbone.text.blocks))

    def image_depth(self) -> int:
        """Layers of the image tower with tokens of their own."""
        return min(self.config.depth, self.image_tower.layers)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        text = self.backbone.text
        for name in classnames:
            if not text.tokens(name):  # in front of which words that stay would hide it
                raise InputError(f"class name {name!r} has no token: give it a name in words")
        _, fixed, tail = split_context_tokens(self.config.template, self.config.tokens, text)
        names = [f"{fixed} {name}".strip() for name in classnames]
        self.prompts = make_prompts(text, names, before=self.config.tokens, tail=tail)

    @abstractmethod
    def image_prompts(self) -> Sequence[Float[Tensor, "tokens width"]]:
        """The tokens of the image tower, layer by layer."""

    def text_features(self) -> Float[Tensor, "classes embed"]:
        """Unit text features of all classes."""
        return self.prompts(self.context, deep=tuple(self.deep))[0]

    def image_features(self, encoded: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch embed"]:
        """Unit image features."""
        return self.image_tower(encoded, self.image_prompts())

    def class_vectors(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.text_features()[None]
