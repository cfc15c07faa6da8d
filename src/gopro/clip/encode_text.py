"""The text side: a frozen tower, and the fastest exact way to encode the prompts of many classes under a context."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from gopro.clip.packed_prompts import PackedPrompts
from gopro.clip.prompts import FullPrompts, Prompts
from gopro.clip.text_tower import TextTower


def make_prompts(
    tower: TextTower, classnames: Sequence[str], *, before: int = 0, after: int = 0, tail: str = "."
) -> Prompts:
    """Prompts of these classes with room for `before` + `after` context vectors around the name.

    Packed where the tower is causal and made of plain blocks, at full length otherwise (SigLIP).

    Raises:
        InputError: no class; a name without a token; a prompt longer than the tower's context length.
    """
    kind = PackedPrompts if PackedPrompts.fits(tower) else FullPrompts
    return kind(tower, classnames, before=before, after=after, tail=tail)


def encode_texts(tower: TextTower, texts: Sequence[str]) -> Float[Tensor, "texts embed"]:
    """Unit text features of whole texts, without gradient."""
    with torch.no_grad():
        return make_prompts(tower, texts, tail="")()[0]
