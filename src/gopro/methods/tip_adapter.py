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
from gopro.methods.parts.zero_shot_text import Ensemble, zero_shot_text_features
from gopro.methods.recipe import Grid, Recipe, Repository, Training, Variant
from gopro.methods.template import DEFAULT_TEMPLATE
from gopro.settings import NonNegativeInt, PositiveFloat, settings

BETAS, ALPHAS = 200, 20
"""Number of values that `search` tries, as the authors' `search_step`."""


@settings
class TipAdapterConfig:
    """Settings of `tip-adapter` and `tip-adapter-f`."""

    template: str | None = None
    """Prompt with {} for the class name; by default the data set's own."""
    ensemble: Ensemble = "none"
    """Average over CLIP's 7 or 80 templates for ImageNet instead of one template."""
    alpha: float = 1.0
    """Weight of the cache, added to zero-shot CLIP; where it is searched for, the value to fine-tune with."""
    beta: float = 5.5
    """Decay of a training image's weight with its distance; where it is searched for, the value to fine-tune with."""
    search: bool | None = None
    """Choose the alpha and beta that are best on the validation images; null does so if there are any."""
    max_alpha: PositiveFloat = 10.0
    """End of the alphas that are searched, which begin at 0.1."""
    max_beta: PositiveFloat = 12.0
    """End of the betas that are searched, which begin at 0.1."""
    augment: NonNegativeInt = 10
    """Random views of a training image that are averaged into its key; 0 for its evaluation view."""


def _authors(
    data: str, alpha: float, max_alpha: float, max_beta: float, *, file: str | None = None, epochs: int | None = None
) -> Variant:
    """Return what the authors set for a data set; they fine-tune with a beta of 1 on all of them."""
    settings = {"alpha": alpha, "beta": 1.0, "max_alpha": max_alpha, "max_beta": max_beta}
    recipe = {} if epochs is None else {"epochs": epochs}
    return Variant(data=(data,), settings=settings, recipe=recipe, source=f"configs/{file or data}.yaml")


VARIANTS = (
    _authors("caltech101", 3.0, 5.0, 12.0),
    _authors("dtd", 2.0, 13.0, 13.0),
    _authors("eurosat", 2.0, 10.0, 12.0, epochs=100),
    _authors("fgvc_aircraft", 5.0, 30.0, 30.0, file="fgvc"),
    _authors("food101", 1.17, 10.0, 10.0),
    _authors("imagenet", 1.17, 3.0, 7.0),
    _authors("oxford_flowers", 10.0, 50.0, 50.0),
    _authors("oxford_pets", 1.17, 3.0, 7.0),
    _authors("stanford_cars", 3.0, 10.0, 20.0),
    _authors("sun397", 1.17, 10.0, 12.0),
    _authors("ucf101", 3.0, 3.0, 7.0),
    Variant(tasks=("few-shot",), data=("imagenet",), settings={"ensemble": 7}, source="datasets/imagenet.py"),
)


class TipAdapter(Method):
    """Training-free Adaption of CLIP (Zhang et al. 2022, arXiv 2111.03930; repository gaopengcuhk/Tip-Adapter).

    Stored, without training steps: a key per training image, the unit mean of its embeddings, and its label. The logit
    of a class is zero-shot CLIP's plus alpha times the sum of exp(-beta (1 - cos)) over the keys of its images. A class
    that was not trained on has no key and keeps zero-shot CLIP's logit. Base/New/HM are not published.

    The authors' cache, logits, search and fine-tuning are reproduced on recorded features (tests/golden), and the
    grid of the search is theirs for each data set; other data sets have that of EuroSAT, and the paper's alpha 1 and
    beta 5.5 for ImageNet if there are no validation images. Differences from their code: the search uses the few-shot
    validation images, theirs the whole validation split, and for ImageNet, which has none, the test images; unit
    vectors are averaged; the zero-shot logits have the backbone's scale, theirs 100. Their experiments are few-shot:
    the other tasks use the same recipe.
    """

    trained_by = Training.CLOSED_FORM
    recipe = Recipe(crop=0.5)  # `transforms.RandomResizedCrop(scale=(0.5, 1))` of main.py, for the averaged views
    variants = VARIANTS
    repository = Repository(
        name="gaopengcuhk/Tip-Adapter",
        commit="d0e2d6f8c5feb8b6ce937b757810761f7155d4d5",
        files={"few-shot": "main.py"},
    )
    # The recipe chooses alpha and beta on the validation images of each data set; these are the same on all.
    grid = Grid({"alpha": (3.0, 10.0, 30.0, 100.0), "beta": (1.0, 3.0, 8.0), "search": (False,)})
    config: TipAdapterConfig = TipAdapterConfig()
    keys: Float[Tensor, "n embed"]
    labels: Int[Tensor, " n"]
    alpha: Float[Tensor, ""]
    beta: Float[Tensor, ""]

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: TipAdapterConfig, template: str = DEFAULT_TEMPLATE
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
        self._val: tuple[Encoded, Tensor] | None = None  # between `solve` and `search`

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        text, ensemble = self.backbone.text, self.config.ensemble
        self.text = zero_shot_text_features(text, classnames, self.zero_shot_template, ensemble)
        without_keys = len(self.trained_names)  # the column after those of the trained classes
        self.columns = [without_keys if row is None else row for row in self.trained_rows(classnames)]

    def solve(
        self,
        draws: Callable[[int], Iterable[Encoded]],
        labels: Int[Tensor, " n"],
        val: tuple[Encoded, Tensor] | None = None,
    ) -> None:
        total = torch.stack([images.embedding for images in draws(self.config.augment)]).sum(dim=0)
        self.keys.data, self.labels.data = F.normalize(total, dim=-1), labels
        if self.config.search and val is None:
            raise InputError("search=true, but there are no validation images to search on: give alpha and beta")
        self._val = None if self.config.search is False else val
        if self.trained_by is Training.CLOSED_FORM:
            self.search()

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

    @torch.no_grad()
    def search(self) -> None:
        """Set the first alpha and beta of the grid with the highest accuracy on the validation images, if any."""
        if self._val is None:
            return
        image, labels = self._val[0].embedding, self._val[1]
        values, best = self._one_hot_labels(), -1
        zeroshot = self.backbone.logit_scale * similarity(image, self.text)
        for beta in _grid(self.config.max_beta, BETAS):
            cache = self._weights(image, beta) @ values
            for alpha in _grid(self.config.max_alpha, ALPHAS):
                correct = int(((zeroshot + alpha * cache).argmax(dim=-1) == labels).sum())
                if correct > best:
                    best = correct
                    self.alpha.fill_(alpha)
                    self.beta.fill_(beta)
        self._val = None

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        """Resize to the number of training images in the state: a new instance has none."""
        for name in ("keys", "labels"):
            tensor: Tensor = getattr(self, name)
            if (saved := state_dict.get(prefix + name)) is not None:
                tensor.data = tensor.new_empty(len(saved), *tensor.shape[1:])
        super()._load_from_state_dict(state_dict, prefix, *rest)


def _grid(end: float, count: int) -> list[float]:
    """Return evenly spaced values from 0.1 up to `end`, which is left out."""
    return [0.1 + i * (end - 0.1) / count for i in range(count)]


class TipAdapterF(TipAdapter):
    """Tip-Adapter with fine-tuned keys (Zhang et al. 2022, arXiv 2111.03930; repository gaopengcuhk/Tip-Adapter).

    Learned: the keys, [images, D], initialised as Tip-Adapter's and trained by cross-entropy. A class that was not
    trained on has zero-shot CLIP's logit, as in `TipAdapter`. Base/New/HM are not published.

    The recipe is the authors', with a cosine stepped with every batch. Alpha and beta are searched for at the end of
    the last epoch; with `--select val`, an earlier epoch that is better has the initial ones. One difference from the
    authors' code beside those of `TipAdapter`: the last epoch is kept, where theirs keeps the one that is best on the
    test images.
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
        eps=1e-4,
        drop_last=False,
        crop=0.5,
    )
    grid = Grid({"lr": (3e-4, 1e-3, 3e-3), "alpha": (10.0, 30.0), "beta": (1.0, 5.5), "search": (False,)})

    def end_epoch(self, epoch: int, epochs: int) -> None:
        if epoch + 1 == epochs:
            self.search()
