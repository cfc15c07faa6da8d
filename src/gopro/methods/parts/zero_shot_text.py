"""Text features of hand-written prompts: from one template, or averaged over several of CLIP's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip import OPENAI_IMAGENET_TEMPLATES, SIMPLE_IMAGENET_TEMPLATES
from torch import Tensor

from gopro.clip.text.encode import encode_texts
from gopro.clip.text.tower import TextTower
from gopro.methods.template import split_template

Ensemble = Literal["none", 7, 80]
"""One template, or CLIP's for ImageNet (openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb): all 80, or the
subset of 7 at the end of the notebook."""

_TEMPLATES: dict[Ensemble, Sequence[Callable[[str], str]]] = {
    7: SIMPLE_IMAGENET_TEMPLATES,
    80: OPENAI_IMAGENET_TEMPLATES,
}


def zero_shot_text_features(
    text: TextTower, classnames: Sequence[str], template: str, ensemble: Ensemble = "none"
) -> Float[Tensor, "classes embed"]:
    """Encode hand-written prompts into unit text features, without gradient.

    Args:
        template: the prompt with {} for the class name; an ensemble does not use it.
        ensemble: average the unit features over these templates and normalise the mean.

    Raises:
        InputError: a template without exactly one {}; a class name that the text tower cannot encode.
    """
    if ensemble == "none":
        before, after = split_template(template)
        return encode_texts(text, [f"{before} {name}{after}".strip() for name in classnames])
    features = [encode_texts(text, [fill(name) for name in classnames]) for fill in _TEMPLATES[ensemble]]
    return F.normalize(torch.stack(features).mean(dim=0), dim=-1)
