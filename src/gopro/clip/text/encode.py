"""Text features of class names: with learned context (`make_prompts`) or as they are (`encode_texts`)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gopro.clip.text.full_prompts import FullPrompts
from gopro.clip.text.packed_prompts import PackedPrompts
from gopro.clip.text.prompts import Prompts
from gopro.clip.text.tower import TextTower


def make_prompts(
    tower: TextTower, classnames: Sequence[str], *, before: int = 0, after: int = 0, tail: str = "."
) -> Prompts:
    """Return prompts of these classes with room for `before` + `after` context vectors around the class name.

    They are packed if the tower is causal and made of plain blocks, and padded to full length otherwise (SigLIP).

    Example:
        >>> from gopro.clip.backbone import load_backbone
        >>> text = load_backbone("emoji").text
        >>> context = text.embed("a photo of a")  # [4, width], to initialise a learned context
        >>> features = make_prompts(text, ["cat", "dog"], before=4)(context)  # [1, 2, embed_dim]
        >>> features.shape[:2]
        torch.Size([1, 2])

    Raises:
        InputError: there is no class; a class name has no token; a prompt exceeds the tower's context length.
    """
    kind = PackedPrompts if PackedPrompts.fits(tower) else FullPrompts
    return kind(tower, classnames, before=before, after=after, tail=tail)


def encode_texts(tower: TextTower, texts: Sequence[str]) -> Float[Tensor, "texts embed"]:
    """Return unit text features of whole texts, without gradient."""
    with torch.no_grad():
        return make_prompts(tower, texts, tail="")()[0]
