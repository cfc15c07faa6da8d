"""CLIP's cone: a backbone whose features lie as close together as real CLIP's do, with the same zero-shot predictions.

CLIP's image features lie in a narrow cone, its text features in another (the modality gap, Liang et al. 2022, arXiv
2203.02053). The packaged backbones have neither, so a method that takes cosines for distances can pass on them and fail
on CLIP. `with_cone` adds one constant vector to all image features and another to all text features, in two dimensions
of their own:

    e' = [√(1−a) e, √a, 0]        t' = [√(1−b) t, √b cos γ, √b sin γ]

    ⟨e', t'⟩ = k ⟨e, t⟩ + √(ab) cos γ,    k = √((1−a)(1−b))

The second term is the same for all images and texts, and the logit scale is divided by k, so all logits change by one
constant: the probabilities stay. Cosines between images become a + (1−a) times what they were, those between texts
likewise; a, b and γ follow from the cosines that are wanted.
"""

from __future__ import annotations

import copy
import hashlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.clip.similarity import unit_length
from gopro.errors import InputError


class Cosines(NamedTuple):
    """Mean cosines of unit features.

    Attributes:
        images: between images of different classes.
        texts: between the texts of different classes.
        pairs: between an image and the text of its class.
    """

    images: float
    texts: float
    pairs: float


CLIP_COSINES = Cosines(images=0.5, texts=0.85, pairs=0.27)
"""Default target of `with_cone`, within the range known of OpenAI's CLIPs; see docs/benchmark.md."""


def measure_cosines(images: Float[Tensor, "n dim"], texts: Float[Tensor, "n dim"]) -> Cosines:
    """Return the mean cosines of one image of each of n classes, and of the texts of these classes."""
    others = ~torch.eye(len(images), dtype=torch.bool, device=images.device)
    between_images, between_texts = ((x @ x.T)[others].mean().item() for x in (images, texts))
    return Cosines(between_images, between_texts, (images * texts).sum(dim=-1).mean().item())


def with_cone(backbone: Backbone, own: Cosines, wanted: Cosines = CLIP_COSINES) -> Backbone:
    """Return a backbone with the same weights whose features have other mean cosines, and two dimensions more.

    Zero-shot probabilities stay the same up to rounding, with one prompt per class; the mean of several prompts has
    another share of the common vector. The name stays too, but the fingerprint is another, so that features and runs of
    the two are not confused.

    Args:
        own: the cosines that the backbone has, from `measure_cosines`.
        wanted: those to give it.

    Example:
        >>> from gopro.clip.backbone import load_backbone
        >>> emoji = load_backbone("emoji")
        >>> cone = with_cone(emoji, own=Cosines(images=0.16, texts=0.79, pairs=0.46))
        >>> cone.embed_dim - emoji.embed_dim
        2

    Raises:
        InputError: adding common vectors cannot give these cosines, because the backbone's are higher already, or
            because images and texts would lie further apart than their common parts reach.
    """
    image, text = ((to - was) / (1 - was) for was, to in zip(own[:2], wanted[:2], strict=True))
    if not (0 < image < 1 and 0 < text < 1):
        raise InputError(
            f"cosines {own.images:.2f} between images and {own.texts:.2f} between texts cannot be raised to "
            f"{wanted.images:.2f} and {wanted.texts:.2f}: want higher ones, below 1"
        )
    shrink = math.sqrt((1 - image) * (1 - text))
    cosine = (wanted.pairs - shrink * own.pairs) / math.sqrt(image * text)
    if abs(cosine) > 1:
        reach = math.sqrt(image * text)
        raise InputError(
            f"a cosine of {wanted.pairs:.2f} between an image and its text is out of reach: want one from "
            f"{shrink * own.pairs - reach:.2f} to {shrink * own.pairs + reach:.2f}"
        )
    other = copy.copy(backbone)
    other.text = copy.copy(backbone.text)
    other.to_features = _WithCommonPart(image, 1.0)
    other.text.to_features = _WithCommonPart(text, cosine)
    other.embed_dim, other.row_width = backbone.embed_dim + 2, backbone.row_width + 2
    other.logit_scale = backbone.logit_scale / shrink
    cone = f"{backbone.fingerprint()} {image:.9f} {text:.9f} {cosine:.9f}"
    other._fingerprint = hashlib.sha256(cone.encode()).hexdigest()[:16]
    return other


@dataclass(frozen=True)
class _WithCommonPart:
    """Maps a tower's output [..., D] to unit features [..., D + 2] whose last two entries are the same for all.

    Attributes:
        share: squared length of the common part.
        cosine: between the common part and that of the images.
    """

    share: float
    cosine: float

    def __call__(self, embedding: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch wider"]:
        own = math.sqrt(1 - self.share) * unit_length(embedding)
        common = own.new_tensor([self.cosine, math.sqrt(1 - self.cosine**2)]) * math.sqrt(self.share)
        return torch.cat([own, common.expand(*own.shape[:-1], 2)], dim=-1)
