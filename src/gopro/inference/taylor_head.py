"""Taylor head: each image's text features approximated by a second-order expansion, so that no text is encoded.

Methods such as GOPro and CoCoOp generate a context for each image, and these contexts vary along few directions. Let
s(x) be the coordinates of image x along the principal directions, in standard deviations. The feature of class c is
then approximated by

    t_c(x) ≈ t̄_c + Σ_i s_i(x) U_ci + Σ_i q_i(x) Q_ci,    q_i = (s_i² − 1) / √2,

where U and Q are the slope and the curvature of the class feature along each direction, from its values on either side
of the mean context (Stirling's interpolation, which fits the images better than derivatives at the mean do), and t̄ is
the mean feature that follows from them. Every s_i and q_i has mean 0 and variance 1, so the norms of U_ci and Q_ci rank
the terms by their effect. Only as many terms are retained as the requested error needs. The logits are then one matrix
product,

    scale · ⟨(1, z(x)) ⊗ v(x), (t̄_c, retained terms of c)⟩,

which takes C·D·(1 + r) multiply-adds per image for C classes, features of D numbers and r terms. If the text does not
depend on the image, r is 0 and the head is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from gopro.clip.backbone import Encoded
from gopro.clip.similarity import similarity
from gopro.errors import InputError
from gopro.methods.base import Method

MAX_DIRECTIONS = 32
"""Number of principal directions to expand along, at most."""
STEP = 3**0.5
"""Distance from the mean context at which features are computed, in standard deviations. √3 is optimal for normally
distributed coordinates (Nørgaard et al. 2000, "New developments in state estimation for nonlinear systems")."""
CLASSES_PER_CHUNK = 256
"""Classes to expand at once."""
BATCH = 64
"""Images whose exact logits are computed at once."""


@dataclass(frozen=True)
class Agreement:
    """Agreement of two sets of probabilities of the same images.

    The error of an image is the largest difference of a probability over its classes.

    Attributes:
        images: number of images.
        top1: percentage of images with the same most likely class.
        max: maximum error.
        p99: 99th percentile of the errors.
        mean: mean error.
    """

    images: int
    top1: float
    max: float
    p99: float
    mean: float

    @staticmethod
    def between(a: Float[Tensor, "images classes"], b: Float[Tensor, "images classes"]) -> Agreement:
        """Compare two sets of probabilities."""
        errors = (a - b).abs().amax(dim=-1)
        same = (a.argmax(dim=-1) == b.argmax(dim=-1)).double().mean().item()
        return Agreement(len(a), 100 * same, errors.max().item(), errors.quantile(0.99).item(), errors.mean().item())


@dataclass(frozen=True)
class Expansion:
    """Class features of C classes as a sum of r terms, for contexts of n numbers and R principal directions.

    Attributes:
        weights: [C, 1 + r, D], the mean feature and the terms of each class.
        centre: [n], the mean context.
        directions: [n, R], the matrix that maps a context's offset from the mean to its coordinates.
        terms: [r], the meaning of each term: i is the slope along direction i, R + i the curvature along it.
    """

    weights: Float[Tensor, "classes 1+r dim"]
    centre: Float[Tensor, " n"]
    directions: Float[Tensor, "n directions"]
    terms: Int[Tensor, " r"]

    def __len__(self) -> int:
        """Number of terms, without the mean."""
        return len(self.terms)

    def truncate(self, count: int) -> Expansion:
        """Retain the first `count` terms, as copies: views would keep all terms in memory."""
        return Expansion(self.weights[:, : 1 + count].clone(), self.centre, self.directions, self.terms[:count].clone())

    def coordinates(self, contexts: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch r"]:
        """Compute the factor of each term; over the images of the expansion each has mean 0 and variance 1."""
        s = (contexts.flatten(1) - self.centre) @ self.directions
        return torch.cat([s, (s.square() - 1) / 2**0.5], dim=-1)[:, self.terms]


class TaylorHead(Method):
    """A trained method over fixed class names, with its class features expanded around the mean context.

    Use it as any other method: `logits` takes the output of its `encode`.

    Attributes:
        exact: the method that is approximated; it still computes the image features.
        expansion: the class features.
        agreement: with the exact method, on held-out images; None if the head is exact.
    """

    def __init__(self, exact: Method, classnames: Sequence[str], expansion: Expansion, agreement: Agreement | None):
        super().__init__(exact.backbone, classnames, exact.config, exact.template)
        self.exact, self.expansion, self.agreement = exact, expansion, agreement
        self.trained_names, self.trained_template = exact.trained_names, exact.trained_template
        self.frozen_images, self.temperature = exact.frozen_images, exact.temperature
        self.text_depends_on_image = exact.text_depends_on_image

    def for_classes(self, classnames: Sequence[str], template: str | None = None) -> Self:
        """Refuse other class names: an expansion holds for the names it was computed for.

        Raises:
            InputError: always.
        """
        raise InputError("a first-order head only knows the class names it was built for: build one for the others")

    def encode(self, images: Shaped[Tensor, "*batch 3 size size"]) -> Any:
        return self.exact.encode(images)

    def image_vectors(self, encoded: Any) -> Float[Tensor, "batch dim"]:
        """Compute (1, z) ⊗ v."""
        image, contexts = self.exact.image_vectors(encoded), self.exact.image_contexts(encoded)
        if contexts is None:
            return image
        one = torch.ones_like(image[:, :1])
        z = torch.cat([one, self.expansion.coordinates(contexts)], dim=-1)
        return (z[:, :, None] * image[:, None]).flatten(1)

    def image_features(self, encoded: Any) -> Float[Tensor, "*batch embed"]:
        return self.exact.image_features(encoded)

    def image_contexts(self, encoded: Any) -> Float[Tensor, "batch tokens width"] | None:
        return self.exact.image_contexts(encoded)

    def text_features(self, contexts: Tensor | None = None) -> Float[Tensor, "#batch classes embed"]:
        """Evaluate the expansion at each context; exact if the text does not depend on the image."""
        if contexts is None:
            return self.exact.text_features()
        weights = self.expansion.weights[..., : self.backbone.embed_dim]
        return weights[:, 0] + torch.einsum("br,crd->bcd", self.expansion.coordinates(contexts), weights[:, 1:])

    def class_vectors(self, contexts: Tensor | None = None) -> Float[Tensor, "1 classes dim"]:
        """Return (t̄, terms) of each class, the same for all contexts."""
        return self.expansion.weights.flatten(1)[None]

    def logits(self, encoded: Any) -> Float[Tensor, "batch classes"]:
        """Compute the logits as one matrix product, with each image's context generated only once."""
        return self.backbone.logit_scale * similarity(self.image_vectors(encoded), self.class_vectors())


@torch.no_grad()
def fit_taylor_head(
    method: Method,
    classnames: Sequence[str],
    images: Encoded,
    held_out: Encoded,
    *,
    error: float,
    on_progress: Callable[[int], None] = lambda done: None,
) -> TaylorHead:
    """Expand a method whose text depends on the image over any class names, under its present template.

    Args:
        images: their contexts determine the mean and the principal directions.
        held_out: other images. Every second one chooses the number of terms, the rest measure the agreement.
        error: the largest acceptable `Agreement.p99`. If no number of terms achieves it, the fewest are retained whose
            p99 is within 5 % of the best.
        on_progress: called after each chunk of classes with the number of classes in it.

    Raises:
        InputError: fewer than two held-out images.
    """
    if len(held_out.embedding) < 2:
        raise InputError("a first-order head needs two held-out images or more: train with more images")
    choosing, measuring = held_out[::2], held_out[1::2]
    contexts = method.image_contexts(images)
    assert contexts is not None
    logits: tuple[list[Tensor], list[Tensor]] = ([], [])

    def add_exact_logits(part: Method) -> None:
        for parts, images in zip(logits, (choosing, measuring), strict=True):
            parts.append(_exact_logits(part, images))
        on_progress(len(part.classnames))

    expansion = expand_classes(method, classnames, contexts, add_exact_logits)
    exact_choosing, exact_measuring = (method.probabilities(torch.cat(parts, dim=1)) for parts in logits)
    count = _fewest_terms(TaylorHead(method, classnames, expansion, None), choosing, exact_choosing, error)
    head = TaylorHead(method, classnames, expansion.truncate(count), None)
    head.agreement = Agreement.between(exact_measuring, head.probabilities(_exact_logits(head, measuring)))
    return head


@torch.no_grad()
def expand_classes(
    method: Method,
    classnames: Sequence[str],
    contexts: Float[Tensor, "images tokens width"],
    on_chunk: Callable[[Method], None] = lambda part: None,
) -> Expansion:
    """Compute all terms for any class names, sorted by their effect over these images, largest first.

    Args:
        contexts: what `method.image_contexts` returns for the images.
        on_chunk: called after each chunk of classes with the method over these.
    """
    centre, directions = principal_directions(contexts)
    points = torch.cat([centre[None], centre + STEP * directions, centre - STEP * directions])
    points = points.unflatten(1, contexts.shape[1:])
    chunks = []
    for i in range(0, len(classnames), CLASSES_PER_CHUNK):
        part = method.for_classes(classnames[i : i + CLASSES_PER_CHUNK])
        chunks.append(_mean_slopes_curvatures(part.class_vectors(points)))
        on_chunk(part)
    weights = torch.cat(chunks)
    order = weights[:, 1:].square().sum(dim=(0, 2)).argsort(descending=True)
    to_coordinates = (directions / directions.square().sum(dim=1, keepdim=True)).T
    return Expansion(weights[:, torch.cat([order.new_zeros(1), 1 + order])], centre, to_coordinates, order)


@torch.no_grad()
def constant_head(method: Method, classnames: Sequence[str]) -> TaylorHead:
    """Build the head of a method whose text does not depend on the image: no terms, exact."""
    exact = method.for_classes(classnames)
    vectors = exact.class_vectors()[0]
    empty = vectors.new_empty(0)
    return TaylorHead(exact, classnames, Expansion(vectors[:, None], empty, empty[:, None], empty.long()), None)


def principal_directions(
    contexts: Float[Tensor, "images tokens width"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, "directions n"]]:
    """Return the mean of contexts and their principal directions, each scaled to one standard deviation."""
    flat = contexts.flatten(1)
    centre = flat.mean(dim=0)
    _, sizes, directions = torch.linalg.svd(flat - centre, full_matrices=False)
    lengths = sizes[:MAX_DIRECTIONS] / len(flat) ** 0.5
    count = int((lengths > 1e-5 * centre.norm()).sum())  # shorter directions are rounding errors
    return centre, lengths[:count, None] * directions[:count]


def _mean_slopes_curvatures(features: Float[Tensor, "points classes dim"]) -> Float[Tensor, "classes terms dim"]:
    """Compute mean, slopes and curvatures from features at the centre and on either side along each direction."""
    directions = len(features) // 2
    at_centre, plus, minus = features[0], features[1 : 1 + directions], features[1 + directions :]
    slope = (plus - minus) / (2 * STEP)
    half_curvature = ((plus + minus) / 2 - at_centre) / STEP**2  # half the second derivative
    # half_curvature · s² = half_curvature + √2 half_curvature · q, since q = (s² − 1) / √2
    mean = at_centre + half_curvature.sum(dim=0)
    return torch.cat([mean[None], slope, 2**0.5 * half_curvature]).transpose(0, 1)


def _exact_logits(method: Method, images: Encoded) -> Float[Tensor, "images classes"]:
    count = len(images.embedding)
    return torch.cat([method.logits(images[i : i + BATCH]) for i in range(0, count, BATCH)])


def _fewest_terms(
    head: TaylorHead, images: Encoded, probabilities: Float[Tensor, "images classes"], error: float
) -> int:
    """Return the smallest number of leading terms whose p99 is at most `error`, or within 5 % of the best.

    Args:
        probabilities: those of the exact method for these images.
    """
    contexts = head.exact.image_contexts(images)
    assert contexts is not None
    z = head.expansion.coordinates(contexts)
    image = head.exact.image_vectors(images)
    logits, p99s = torch.zeros_like(probabilities), []
    for i, weights in enumerate(head.expansion.weights.unbind(dim=1)):
        term = image @ weights.T if i == 0 else z[:, i - 1, None] * (image @ weights.T)
        logits += head.backbone.logit_scale * term
        p99s.append(Agreement.between(head.probabilities(logits), probabilities).p99)
        if p99s[-1] <= error:
            break
    limit = max(error, 1.05 * min(p99s))
    return next(count for count, p99 in enumerate(p99s) if p99 <= limit)
