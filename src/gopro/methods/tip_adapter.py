"""Tip-Adapter: zero-shot CLIP plus a cache of the training images, with or without fine-tuning it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.similarity import similarity
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.recipe import Recipe, Training
from gopro.methods.template import DEFAULT_TEMPLATE
from gopro.methods.zero_shot_text import Ensemble, zero_shot_text_features
from gopro.settings import NonNegativeInt, settings

BETAS = [0.1 + i * 11.9 / 200 for i in range(200)]
ALPHAS = [0.1 + i * 9.9 / 20 for i in range(20)]
"""The grid of `search`: the authors' for SUN397 and EuroSAT, up to 12 and 10. For other data sets theirs ends at 7 to
50 and at 3 to 50."""


@settings
class TipAdapterFConfig:
    """Settings of `tip-adapter-f`."""

    template: str | None = None
    """Prompt with {} for the class name; by default the data set's own."""
    ensemble: Ensemble = "none"
    """Average over CLIP's 7 or 80 templates for ImageNet instead of one template."""
    alpha: float = 1.0
    """Weight of the cache, added to zero-shot CLIP."""
    beta: float = 5.5
    """Decay of a training image's weight with its distance."""
    augment: NonNegativeInt = 10
    """Random views of a training image that are averaged into its key; 0 for its evaluation view."""


@settings
class TipAdapterConfig(TipAdapterFConfig):
    """Settings of `tip-adapter`."""

    search: bool = False
    """Choose the alpha and beta that are best on the validation images."""


class TipAdapter(Method):
    """Training-free Adaption of CLIP (Zhang et al. 2022, arXiv 2111.03930; repository gaopengcuhk/Tip-Adapter).

    Stored, without training steps: a key per training image, the unit mean of its embeddings, and its label. The logit
    of a class is zero-shot CLIP's plus alpha times the sum of exp(-beta (1 - cos)) over the keys of its images. A class
    that was not trained on has no key and keeps zero-shot CLIP's logit. Base/New/HM are not published.

    The authors' cache, logits, search and fine-tuning are reproduced on recorded features (tests/golden). Differences
    from their code: alpha 1 and beta 5.5 are the paper's for ImageNet, where the code has initial values for each data
    set and always searches, on a grid per data set and for ImageNet on the test images (here `search` uses the
    few-shot validation images); the averaged views are crops of 0.08 to 1 of the area, theirs 0.5 to 1, and unit
    vectors are averaged; the zero-shot logits have the backbone's scale, theirs 100; the prompt is the data set's
    template, theirs on ImageNet the mean of seven (`ensemble=7`).
    """

    trained_by = Training.CLOSED_FORM
    recipe = Recipe(crop=0.5)  # `transforms.RandomResizedCrop(scale=(0.5, 1))` of main.py, for the averaged views
    config: TipAdapterFConfig = TipAdapterConfig()
    keys: Float[Tensor, "n embed"]
    labels: Int[Tensor, " n"]
    alpha: Float[Tensor, ""]
    beta: Float[Tensor, ""]

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: TipAdapterFConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        keys = torch.empty(0, backbone.embed_dim)
        if self.trained_by is Training.CLOSED_FORM:
            self.register_buffer("keys", keys)
        else:
            self.keys = nn.Parameter(keys)
        self.register_buffer("labels", torch.empty(0, dtype=torch.long))
        self.register_buffer("alpha", torch.tensor(config.alpha))
        self.register_buffer("beta", torch.tensor(config.beta))

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        text, ensemble = self.backbone.text, self.config.ensemble
        self.text = zero_shot_text_features(text, classnames, self.zero_shot_template, ensemble)
        row = {name: i for i, name in enumerate(self.trained_names)}
        self.columns = [row.get(name, len(row)) for name in classnames]  # the last column has no image

    def solve(
        self,
        draws: Callable[[int], Iterable[Encoded]],
        labels: Int[Tensor, " n"],
        val: tuple[Encoded, Tensor] | None = None,
    ) -> None:
        total = torch.stack([images.embedding for images in draws(self.config.augment)]).sum(dim=0)
        self.keys.data, self.labels.data = F.normalize(total, dim=-1), labels
        if isinstance(self.config, TipAdapterConfig) and self.config.search:
            if val is None:
                raise InputError("search=true, but there are no validation images to search on: give alpha and beta")
            self._search(*val)

    def text_features(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.text[None]

    def image_vectors(self, encoded: Encoded) -> Float[Tensor, "batch dim"]:
        """Return the embeddings, then the weight of each key, divided by the scale that `logits` multiplies with."""
        image = encoded.embedding
        return torch.cat([image, self.alpha / self.backbone.logit_scale * self._weights(image, self.beta)], dim=-1)

    def class_vectors(self, contexts: None = None) -> Float[Tensor, "1 classes dim"]:
        """Return the text features, then a 1 for each key of the class."""
        return torch.cat([self.text, self._one_hot_labels().T], dim=-1)[None]

    def _weights(self, image: Float[Tensor, "batch embed"], beta: Tensor | float) -> Float[Tensor, "batch n"]:
        """Return the weight of each key for an image, between 0 and 1."""
        return torch.exp(-beta * (1 - similarity(image, self.keys)))

    def _one_hot_labels(self) -> Float[Tensor, "n classes"]:
        """Return 1 where a key is of the class, else 0."""
        return F.one_hot(self.labels, len(self.trained_names) + 1)[:, self.columns].to(self.keys)

    def _search(self, encoded: Encoded, labels: Int[Tensor, " n"]) -> None:
        """Set the first alpha and beta of the grid with the highest accuracy."""
        image, values, best = encoded.embedding, self._one_hot_labels(), -1
        zeroshot = self.backbone.logit_scale * similarity(image, self.text)
        for beta in BETAS:
            cache = self._weights(image, beta) @ values
            for alpha in ALPHAS:
                correct = int(((zeroshot + alpha * cache).argmax(dim=-1) == labels).sum())
                if correct > best:
                    best = correct
                    self.alpha.fill_(alpha)
                    self.beta.fill_(beta)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Resize to the number of training images in the state: a new instance has none."""
        for name in ("keys", "labels"):
            tensor: Tensor = getattr(self, name)
            if (saved := state_dict.get(prefix + name)) is not None:
                tensor.data = tensor.new_empty(len(saved), *tensor.shape[1:])
        super()._load_from_state_dict(state_dict, prefix, *rest)


class TipAdapterF(TipAdapter):
    """Tip-Adapter with fine-tuned keys (Zhang et al. 2022, arXiv 2111.03930; repository gaopengcuhk/Tip-Adapter).

    Learned: the keys, [images, D], initialised as Tip-Adapter's and trained by cross-entropy. A class that was not
    trained on has zero-shot CLIP's logit, as in `TipAdapter`. Base/New/HM are not published.

    Differences from the authors' code beside those of `TipAdapter`: the last epoch is kept, where theirs keeps the one
    that is best on the test images; alpha and beta are not searched for afterwards; AdamW's epsilon is torch's 1e-8,
    theirs 1e-4. Their recipe has 100 epochs on EuroSAT.
    """

    trained_by = Training.CLOSED_FORM_THEN_STEPS
    recipe = Recipe(
        optimizer="adamw",
        lr=1e-3,
        epochs=20,
        batch=256,
        warmup=0.0,
        schedule="step",
        weight_decay=0.01,
        drop_last=False,
        crop=0.5,
    )
    config = TipAdapterFConfig()
