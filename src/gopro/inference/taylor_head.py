"""First-order head: an image's own text features expanded around the mean ones, so that no text is encoded any more.

The contexts that images generate lie near a few directions. Let s(x) be an image's coordinates along the principal
ones, in standard deviations, and

    t_c(x) ≈ t̄_c + Σ_i s_i(x) U_ci + Σ_i q_i(x) Q_ci,    q_i = (s_i² − 1) / √2

with U and Q the slope and the curvature of the final class feature along each direction, from its values to either side
(Stirling's interpolation, nearer for the images than the derivative at the centre), and t̄ the mean that follows. All
of s and q have mean 0 and variance 1, so the size of U_ci or Q_ci says what a term does; those that do most are kept,
as many as the error asked for needs. The logits are then one matrix product,

    scale · ⟨(1, z(x)) ⊗ v(x), (t̄_c, kept terms of c)⟩,

C·D·(1 + r) multiply-adds an image for r terms. Where the text takes nothing of an image r is 0 and the head exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from gopro.clip.backbone import Encoded
from gopro.errors import InputError
from gopro.methods.base import Method

DIRECTIONS = 32
"""Most principal directions that are looked along."""
STEP = 3**0.5
"""Standard deviations from the centre at which features are taken: the best for coordinates that are normal (Nørgaard
et al. 2000, "New developments in state estimation for nonlinear systems")."""
TOGETHER = 256
"""Classes that are expanded at a time."""
BATCH = 64
"""Images whose exact logits are taken at a time."""


@dataclass(frozen=True)
class Agreement:
    """How near a head comes to the exact logits, on images that it was not built from.

    Attributes:
        images: how many these are.
        top1: percent of them whose likeliest class is the same.
        largest: largest difference of a probability.
        most: what the largest difference of 99 of 100 images keeps to: what an error asked for is held against.
        mean: of an image's largest difference, the mean over images.
    """

    images: int
    top1: float
    largest: float
    most: float
    mean: float

    @staticmethod
    def between(a: Float[Tensor, "images classes"], b: Float[Tensor, "images classes"]) -> Agreement:
        """Of two sets of probabilities."""
        apart = (a - b).abs().amax(dim=-1)
        same = (a.argmax(dim=-1) == b.argmax(dim=-1)).double().mean().item()
        return Agreement(len(a), 100 * same, apart.max().item(), apart.quantile(0.99).item(), apart.mean().item())


@dataclass(frozen=True)
class Terms:
    """The tensors of a head, for C classes, R directions, r terms, contexts of n numbers and features of D.

    Attributes:
        weights: [C, 1 + r, D], the mean feature and the kept terms of each class.
        centre: [n], the mean context.
        directions: [n, R], what a context's distance from there is multiplied with for its coordinates.
        kept: [r], the terms that are kept: i for the slope along direction i, R + i for the curvature along it.
    """

    weights: Float[Tensor, "classes terms dim"]
    centre: Float[Tensor, " n"]
    directions: Float[Tensor, "n directions"]
    kept: Int[Tensor, " r"]

    def first(self, count: int) -> Terms:
        """The first terms alone, as copies: a view would keep all in memory."""
        return Terms(self.weights[:, : 1 + count].clone(), self.centre, self.directions, self.kept[:count].clone())


class TaylorHead(Method):
    """A trained method over fixed class names with its class features expanded around the mean context.

    It is a method like any other: `logits` takes what its `encode` gives.

    Attributes:
        exact: the method that it stands for, of which it takes the images' side.
        terms: the head's tensors.
        agreement: with the exact logits; None where it is exact.
    """

    def __init__(self, exact: Method, classnames: Sequence[str], terms: Terms, agreement: Agreement | None):
        super().__init__(exact.backbone, classnames, exact.config)
        self.exact, self.terms, self.agreement = exact, terms, agreement
        self.frozen_images = exact.frozen_images

    def for_classes(self, classnames: Sequence[str]) -> Self:
        """Not to be had: a head is built for its class names.

        Raises:
            InputError: always.
        """
        raise InputError("a first-order head holds for the class names that it was built for: build one for the others")

    def encode(self, images: Float[Tensor, "*batch 3 size size"]) -> Any:
        return self.exact.encode(images)

    def image_vectors(self, encoded: Any) -> Float[Tensor, "batch dim"]:
        """(1, z) ⊗ v."""
        image, contexts = self.exact.image_vectors(encoded), self.exact.image_contexts(encoded)
        if contexts is None:
            return image
        one = torch.ones_like(image[:, :1])
        z = torch.cat([one, coordinates(contexts, self.terms)], dim=-1)
        return (z[:, :, None] * image[:, None]).flatten(1)

    def image_features(self, encoded: Any) -> Float[Tensor, "*batch embed"]:
        return self.exact.image_features(encoded)

    def class_features(self, encoded: Any) -> Float[Tensor, "#batch classes embed"]:
        """As expanded, where the text is an image's own."""
        contexts = self.exact.image_contexts(encoded)
        if contexts is None:
            return self.exact.class_features(encoded)
        weights = self.terms.weights[..., : self.backbone.embed_dim]
        return weights[:, 0] + torch.einsum("br,crd->bcd", coordinates(contexts, self.terms), weights[:, 1:])

    def class_vectors(self, contexts: None = None) -> Float[Tensor, "1 classes dim"]:
        """(t̄, kept terms) of each class."""
        return self.terms.weights.flatten(1)[None]


def coordinates(contexts: Float[Tensor, "batch tokens width"], terms: Terms) -> Float[Tensor, "batch r"]:
    """The values of the kept terms for contexts, each of mean 0 and variance 1 over the images of the head."""
    s = (contexts.flatten(1) - terms.centre) @ terms.directions
    return torch.cat([s, (s.square() - 1) / 2**0.5], dim=-1)[:, terms.kept]


@torch.no_grad()
def first_order(
    method: Method,
    classnames: Sequence[str],
    seen: Encoded,
    held_out: Encoded,
    *,
    error: float,
    on_progress: Callable[[int], None] = lambda done: None,
) -> TaylorHead:
    """The first-order head of a method whose text is an image's own.

    Args:
        classnames: any.
        seen: images whose contexts say where to expand, and along what.
        held_out: others. Every second one chooses how many terms are kept, the rest measure the agreement.
        error: largest difference of a probability that 99 of 100 images may have. Where no number of terms keeps to
            it, few are taken that come within a twentieth of the nearest.
        on_progress: told how many classes have been expanded after each part of them.

    Raises:
        InputError: fewer than two held-out images.
    """
    if len(held_out.embedding) < 2:
        raise InputError("a first-order head needs two images or more that it is not built from: train with more")
    choosing, judging = held_out[::2], held_out[1::2]
    contexts = method.image_contexts(seen)
    assert contexts is not None
    exact: list[list[Tensor]] = [[], []]

    def take(part: Method) -> None:
        for logits, images in zip(exact, (choosing, judging), strict=True):
            logits.append(_logits(part, images))
        on_progress(len(part.classnames))

    every = expand(method, classnames, contexts, take)
    wanted, judged = (torch.cat(logits, dim=1).softmax(dim=-1) for logits in exact)
    count = _enough(TaylorHead(method, classnames, every, None), choosing, wanted, error)
    head = TaylorHead(method, classnames, every.first(count), None)
    head.agreement = Agreement.between(judged, _logits(head, judging).softmax(dim=-1))
    return head


@torch.no_grad()
def expand(
    method: Method,
    classnames: Sequence[str],
    contexts: Float[Tensor, "images tokens width"],
    take: Callable[[Method], None] = lambda part: None,
) -> Terms:
    """All terms of the head for any class names, those first that do most over these contexts of images.

    Args:
        take: called for each part of the classes, that are expanded together, with the method over these.
    """
    centre, spread = principal_directions(contexts)
    tried = torch.cat([centre[None], centre + STEP * spread, centre - STEP * spread]).unflatten(1, contexts.shape[1:])
    parts = []
    for i in range(0, len(classnames), TOGETHER):
        part = method.for_classes(classnames[i : i + TOGETHER])
        parts.append(_expanded(part.class_vectors(tried)))
        take(part)
    weights = torch.cat(parts)
    order = weights[:, 1:].square().sum(dim=(0, 2)).argsort(descending=True)
    directions = (spread / spread.square().sum(dim=1, keepdim=True)).T
    return Terms(weights[:, torch.cat([order.new_zeros(1), 1 + order])], centre, directions, order)


@torch.no_grad()
def constant(method: Method, classnames: Sequence[str]) -> TaylorHead:
    """The head of a method whose text takes nothing of an image: its class features as they are, exact."""
    exact = method.for_classes(classnames)
    vectors = exact.class_vectors()[0]
    none = vectors.new_empty(0)
    return TaylorHead(exact, classnames, Terms(vectors[:, None], none, none[:, None], none.long()), None)


@torch.no_grad()
def takes_nothing(method: Method) -> bool:
    """Whether the method's text takes nothing of an image, so that it is the same for all."""
    size = method.backbone.preprocess.size
    return method.image_contexts(method.encode(torch.zeros(1, 3, size, size, device=method.backbone.device))) is None


def with_fixed_text(method: Method) -> Method:
    """The method for use on many images: where its text is the same for all of them, with that encoded once, now."""
    if isinstance(method, TaylorHead) or not takes_nothing(method):
        return method
    return constant(method, method.classnames)


def principal_directions(
    contexts: Float[Tensor, "images tokens width"],
) -> tuple[Float[Tensor, " n"], Float[Tensor, "directions n"]]:
    """The mean of contexts, and the principal directions around it, each one standard deviation long."""
    flat = contexts.flatten(1)
    centre = flat.mean(dim=0)
    _, sizes, directions = torch.linalg.svd(flat - centre, full_matrices=False)
    lengths = sizes[:DIRECTIONS] / len(flat) ** 0.5
    count = int((lengths > 1e-5 * centre.norm()).sum())  # the rest is rounding
    return centre, lengths[:count, None] * directions[:count]


def _expanded(features: Float[Tensor, "tried classes dim"]) -> Float[Tensor, "classes terms dim"]:
    """Mean feature, slopes and curvatures, from the features at the centre, and to either side of each direction."""
    directions = len(features) // 2
    at_centre, plus, minus = features[0], features[1 : 1 + directions], features[1 + directions :]
    slope = (plus - minus) / (2 * STEP)
    bend = ((plus + minus) / 2 - at_centre) / STEP**2  # half the second derivative
    return torch.cat([(at_centre + bend.sum(dim=0))[None], slope, 2**0.5 * bend]).transpose(0, 1)


def _logits(method: Method, images: Encoded) -> Float[Tensor, "images classes"]:
    count = len(images.embedding)
    return torch.cat([method.logits(images[i : i + BATCH]) for i in range(0, count, BATCH)])


def _enough(head: TaylorHead, images: Encoded, wanted: Float[Tensor, "images classes"], error: float) -> int:
    """How many of the terms, the first ones, are enough for 99 of 100 images to keep to the error, or nearly the
    nearest to it that there is."""
    contexts = head.exact.image_contexts(images)
    assert contexts is not None
    z = coordinates(contexts, head.terms)
    image = head.exact.image_vectors(images)
    logits, errors = torch.zeros_like(wanted), []
    for i, weights in enumerate(head.terms.weights.unbind(dim=1)):
        term = image @ weights.T if i == 0 else z[:, i - 1, None] * (image @ weights.T)
        logits += head.backbone.logit_scale * term
        apart = (logits.softmax(dim=-1) - wanted).abs().amax(dim=-1)
        errors.append(apart.quantile(0.99).item())
        if errors[-1] <= error:
            break
    limit = max(error, 1.05 * min(errors))
    return next(count for count, reached in enumerate(errors) if reached <= limit)
