"""Hand-written prompts: text features of classes from one template, or from the mean of CLIP's published ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor

from gopro.clip.encode_text import encode_texts
from gopro.clip.text_tower import TextTower
from gopro.methods.base import split_template

Ensemble = Literal["none", 7, 80]
"""One template, or CLIP's for ImageNet (openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb): all 80 or the
subset of 7 that it ends with."""

_TEMPLATES: dict[Ensemble, Sequence[Callable[[str], str]]] = {
    7: SIMPLE_IMAGENET_TEMPLATES,
    80: OPENAI_IMAGENET_TEMPLATES,
}


def template_features(
    text: TextTower, classnames: Sequence[str], template: str, ensemble: Ensemble = "none"
) -> Float[Tensor, "classes embed"]:
    """Unit text features of hand-written prompts, without gradient.

    Args:
        template: with {} for the class name; an ensemble has its own.
        ensemble: the mean of the unit features of these templates, made unit length again.

    Raises:
        InputError: a template without exactly one {}; a class name that the text tower cannot take.
    """
    before, behind = split_template(template)
    if ensemble == "none":
        return encode_texts(text, [f"{before} {name}{behind}".strip() for name in classnames])
    features = [encode_texts(text, [write(name) for name in classnames]) for write in _TEMPLATES[ensemble]]
    return F.normalize(torch.stack(features).mean(dim=0), dim=-1)
