"""Zero-shot CLIP: hand-written prompts, nothing learned."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from gopro.backbone import Encoded
from gopro.methods.base import Method, split_template
from gopro.text import encode_texts


@dataclass(frozen=True)
class ZeroShotConfig:
    """Settings of `zeroshot`."""

    template: str | None = None
    """The prompt, with {} for the class name; the data set's own if not given."""


class ZeroShot(Method):
    """CLIP as it is (Radford et al. 2021, arXiv 2103.00020), with one template.

    Published Base/New/HM on 11 data sets, ViT-B/16: 69.34/74.22/71.70.
    """

    learns = False
    config: ZeroShotConfig

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        before, behind = split_template(self.config.template or "a photo of a {}.")
        self.text = encode_texts(self.backbone.text, [f"{before} {name}{behind}".strip() for name in classnames])

    def logits(self, encoded: Encoded) -> Float[Tensor, "batch classes"]:
        return self.backbone.logit_scale * encoded.embedding @ self.text.T
