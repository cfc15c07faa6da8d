"""MMRL: representation tokens of one shared space, inserted into the upper layers of both towers."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone
from gopro.clip.prompted_image_tower import PromptedImageTower
from gopro.clip.similarity import similarity
from gopro.clip.text.encode import make_prompts
from gopro.methods.base import Method
from gopro.methods.parts.zero_shot_text import zero_shot_text_features
from gopro.methods.recipe import Grid, Recipe, Repository, Variant
from gopro.methods.template import DEFAULT_TEMPLATE, split_template
from gopro.settings import PositiveInt, settings


@settings
class MMRLConfig:
    """Settings of `mmrl`."""

    template: str | None = None
    """Hand-written prompt with {} for the class name; by default the data set's own."""
    tokens: PositiveInt = 5
    """Number of representation tokens."""
    dim: PositiveInt = 512
    """Dimension of the space that both towers' tokens are mapped from."""
    depth: PositiveInt | None = None
    """Upper layers of each tower with representation tokens; by default 7 of 12."""
    alpha: float = 0.7
    """Weight of the class token's feature in loss and prediction; the representation tokens' feature has the rest."""
    reg: float = 1.0
    """Weight of the distance to frozen CLIP: 1 - cos of image features and of text features."""
    fuse: bool = True
    """Use the representation tokens' feature in predictions over trained class names in the trained data set."""


_REG = {
    "stanford_cars": 7.0,
    "fgvc_aircraft": 6.0,
    "sun397": 6.0,
    "dtd": 6.0,
    "food101": 5.0,
    "oxford_flowers": 4.0,
    "ucf101": 3.0,
    "imagenet": 0.5,
    "caltech101": 0.5,
    "oxford_pets": 0.2,
    "eurosat": 0.01,
}
"""The authors' `REG_WEIGHT` of each data set."""


class MMRL(Method):
    """Multi-Modal Representation Learning (Guo, Gu 2025, arXiv 2503.08497; repository yunncheng/MMRL). ViTs only.

    Learned: five tokens in a space of 512 dimensions; for each of the last seven layers a linear map of them to tokens
    after SOS in the hand-written prompt, and one to tokens beside the patches; the projection of the latter at the
    output, initialised at random; 4,992,256 parameters on ViT-B/16. An image has two features: its class token's, by
    frozen CLIP's projection, and the mean of its representation tokens'. Each has a cross-entropy; the class token's
    feature and the text features also have a loss that keeps them near frozen CLIP's. Published Base/New/HM on 11 data
    sets, ViT-B/16: 85.68/77.16/81.20.

    The representation feature fits the training classes and is unreliable on others, so the authors use both features
    for base classes, and the class token's alone for new classes and for other data sets, even if these have the same
    classes (ImageNetV2 and its like). Here, too, both are used if all class names were trained on, unless
    `for_classes(..., other_data=True)` says that the images come from another data set.

    A training step, a whole training and a test from ImageNet to EuroSAT by the authors' code are reproduced
    (tests/golden), and the recipes are theirs, with Dassl's schedule, a cosine stepped once an epoch. Most data sets
    have a `reg` of their own, from 0.01 (EuroSAT, with `dim=2048`) to 7 (Stanford Cars); 1 is the default of their
    configuration. Differences from their code: layers are counted from the top, which is the same in towers of 12
    layers; logits have the backbone's scale, theirs 100.
    """

    frozen_images = False
    needs_vit = True
    recipe = Recipe(optimizer="adamw", lr=1e-3, epochs=10, batch=4, crop=0.5)
    variants = (
        Variant(
            tasks=("few-shot",),
            recipe={"epochs": 50, "batch": 32},
            settings={"reg": 0.5},
            source="configs/trainers/MMRL/vit_b16_few_shot.yaml",
        ),
        Variant(
            tasks=("base-to-new", "few-shot"),
            data=("imagenet",),
            recipe={"epochs": 5, "batch": 32},
            source="configs/trainers/MMRL/vit_b16_imagenet.yaml",
        ),
        *(
            Variant(tasks=("base-to-new", "few-shot"), data=(data,), settings={"reg": reg}, source="trainers/config.py")
            for data, reg in _REG.items()
        ),
        Variant(
            tasks=("base-to-new", "few-shot"), data=("eurosat",), settings={"dim": 2048}, source="trainers/config.py"
        ),
        Variant(
            tasks=("transfer",),
            recipe={"epochs": 1, "batch": 32, "warmup": 0.0},
            source="configs/trainers/MMRL/vit_b16_cross_datasets.yaml",
        ),
        Variant(tasks=("transfer",), settings={"reg": 0.2}, source="scripts/mmrl/cross_datasets_train.sh"),
    )
    repository = Repository(
        name="yunncheng/MMRL",
        commit="27d8821f6ac135a1d0c8e4c5ed78af14df0cd82e",
        files={
            "base-to-new": "configs/trainers/MMRL/vit_b16.yaml",
            "transfer": "configs/trainers/MMRL/vit_b16_cross_datasets.yaml",
            "few-shot": "configs/trainers/MMRL/vit_b16_few_shot.yaml",
        },
    )
    grid = Grid({"lr": (3e-4, 1e-3, 3e-3), "epochs": (5, 10), "reg": (1.0, 5.0)})
    config: MMRLConfig = MMRLConfig()

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: MMRLConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        self.image_tower = PromptedImageTower(backbone)
        width = self.image_tower.width
        self.representation = nn.Parameter(0.02 * torch.randn(config.tokens, config.dim))
        to_image, to_text = nn.Linear(config.dim, width), nn.Linear(config.dim, backbone.text.width)
        self.to_image = _copies(to_image, self._depth(self.image_tower.layers))
        self.to_text = _copies(to_text, self._depth(len(backbone.text.blocks)))
        self.project = nn.Parameter(width**-0.5 * torch.randn(width, backbone.embed_dim))

    def _depth(self, layers: int) -> int:
        """Return the number of a tower's layers that have representation tokens."""
        return max(1, round(layers * 7 / 12)) if self.config.depth is None else min(self.config.depth, layers)

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        text = self.backbone.text
        words, tail = split_template(self.zero_shot_template)
        self.words = text.embed(words)  # frozen, the same for all classes
        self.prompts = make_prompts(text, classnames, before=len(self.words), tail=tail)
        self.zero_shot_text = zero_shot_text_features(text, classnames, self.zero_shot_template)
        self.fused = self.config.fuse and not self.other_data and None not in self.trained_rows(classnames)

    def text_features(self, contexts: None = None) -> Float[Tensor, "1 classes embed"]:
        return self.prompts(self.words, upper=[to(self.representation) for to in self.to_text])

    def both_features(self, images: Float[Tensor, "batch 3 size size"]) -> tuple[Tensor, Tensor]:
        """Return the class token's and the representation tokens' unit features, [batch, embed] each."""
        features, mean = self.image_tower.upper(images, [to(self.representation) for to in self.to_image])
        return features, F.normalize((mean @ self.project).float(), dim=-1)

    def image_features(self, encoded: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch embed"]:
        """Return the class token's feature."""
        return self.both_features(encoded)[0]

    def image_vectors(self, encoded: Float[Tensor, "batch 3 size size"]) -> Float[Tensor, "batch embed"]:
        """Return the class token's feature; if `fused`, its weighted mean with the representation tokens'."""
        image, representation = self.both_features(encoded)
        return self.config.alpha * image + (1 - self.config.alpha) * representation if self.fused else image

    def losses(
        self, encoded: Float[Tensor, "views batch 3 size size"], labels: Int[Tensor, " batch"]
    ) -> dict[str, Tensor]:
        alpha, reg, scale = self.config.alpha, self.config.reg, self.backbone.logit_scale
        (image, representation), text = self.both_features(encoded[0]), self.text_features()[0]
        frozen = self.backbone.encode(encoded[0]).embedding
        return {
            "ce": alpha * F.cross_entropy(scale * similarity(image, text), labels),
            "ce_representation": (1 - alpha) * F.cross_entropy(scale * similarity(representation, text), labels),
            "image": reg * (1 - (image * frozen).sum(dim=-1).mean()),  # unit vectors: their products are cosines
            "text": reg * (1 - (text * self.zero_shot_text).sum(dim=-1).mean()),
        }


def _copies(layer: nn.Linear, count: int) -> nn.ModuleList:
    """Return layers that are initialised alike, as the authors' are."""
    return nn.ModuleList(copy.deepcopy(layer) for _ in range(count))
