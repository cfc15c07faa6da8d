"""GOPro without packing: every view, image by image, with 77 positions per class, at test time too.

This is `gopro-release` with no work saved and nothing else changed. It measures what the packed text tower and the
single view at test time save, separately from the other differences to the released code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gopro.clip.backbone import Encoded
from gopro.clip.similarity import similarity
from gopro.clip.text.full_prompts import FullPrompts
from gopro.methods.gopro_release import GOProRelease
from gopro.methods.template import split_context_template


class UnpackedGOPro(GOProRelease):
    """`gopro-release` with full-length prompts, encoded image by image."""

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        words, tail = split_context_template(self.config.template)
        text = self.backbone.text
        self.prompts = FullPrompts(text, classnames, before=len(text.tokens(words)), tail=tail)

    def encode(self, images: Tensor) -> Encoded:
        """Encode view by view."""
        views = [self.backbone.encode(view) for view in images]
        return Encoded(*(torch.stack([getattr(v, f) for v in views]) for f in ("embedding", "mean", "std")))

    def text_features(self, contexts: Tensor) -> Tensor:
        """Encode the prompts image by image."""
        text = [self.prompts(context[None])[0] for context in contexts.flatten(0, -3)]
        return torch.stack(text).unflatten(0, contexts.shape[:-2])

    def logits(self, encoded: Encoded) -> Tensor:
        """Return the logits of the first view from all views [views, batch], as the released code does."""
        text = self.text_features(self.view_contexts(encoded))[0]
        return self.backbone.logit_scale * similarity(encoded.embedding[0], text)
