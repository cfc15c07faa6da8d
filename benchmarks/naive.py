"""GOPro in its plain form: image by image, 77 positions a class, every view, at test time too.

It is `gopro-release` with nothing saved and nothing else changed: what the packed text tower and the one view at test
time are worth, apart from anything else that the released code does differently.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gopro.clip.backbone import Encoded
from gopro.clip.prompts import FullPrompts, Prompts
from gopro.methods.base import split_context_template
from gopro.methods.gopro import GOProRelease


class Naive(GOProRelease):
    """`gopro-release`, each image's prompts at full length and on their own."""

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        words, tail = split_context_template(self.config.template)
        text = self.backbone.text
        self.prompts = FullPrompts(text, classnames, before=len(text.tokens(words)), tail=tail)

    def encode(self, images: Tensor) -> Encoded:
        """View by view."""
        views = [self.backbone.encode(view) for view in images]
        return Encoded(*(torch.stack([getattr(v, f) for v in views]) for f in ("embedding", "mean", "std")))

    def text_features(self, contexts: Tensor, prompts: Prompts | None = None) -> Tensor:
        """ImageSource by image."""
        prompts = prompts or self.prompts
        text = [prompts(context[None])[0] for context in contexts.flatten(0, -3)]
        return torch.stack(text).unflatten(0, contexts.shape[:-2])

    def logits(self, encoded: Encoded) -> Tensor:
        """Of all views, the first of which is read: [views, batch] in."""
        return self._logits(self.image_features(encoded)[0], self.text_features(self.contexts(encoded))[0])
