"""Base of the methods that generate the context before the class name from each image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from gopro.clip.backbone import Encoded
from gopro.clip.text.encode import make_prompts
from gopro.clip.text.prompts import Prompts
from gopro.methods.base import Method
from gopro.methods.template import split_context_template


class ConditionalPrompts(Method):
    """A method whose subclass generates the context before the class name from each image, in `image_contexts`.

    Attributes:
        extra_tokens: number of context tokens besides one for each token of the template's words.
    """

    text_depends_on_image = True
    extra_tokens: ClassVar[int] = 0

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self.prompts = self.make_prompts(classnames)

    def make_prompts(self, classnames: Sequence[str]) -> Prompts:
        """Return the prompts of these classes, with room for the context."""
        words, tail = split_context_template(self.config.template)
        text = self.backbone.text
        before = len(text.tokens(words)) + self.extra_tokens
        return make_prompts(text, classnames, before=before, tail=tail)

    def text_features(self, contexts: Float[Tensor, "*batch tokens width"]) -> Float[Tensor, "*batch classes embed"]:
        return self.prompts(contexts.flatten(0, -3)).unflatten(0, contexts.shape[:-2])

    def logits(self, encoded: Encoded) -> Float[Tensor, "batch classes"]:
        # In chunks of classes: text features of all images and classes at once take batch · classes · D numbers.
        similarities = self.prompts.similarities(self.image_features(encoded), self.image_contexts(encoded))
        return self.backbone.logit_scale * similarities
