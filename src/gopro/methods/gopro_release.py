"""GOPro as released: what the authors' code computes, without the faults of its harness."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.similarity import similarity
from gopro.distributed import gather
from gopro.errors import InputError
from gopro.methods.parts.conditional_prompts import ConditionalPrompts
from gopro.methods.parts.losses import nt_xent
from gopro.methods.recipe import Grid, Recipe, Repository
from gopro.methods.template import DEFAULT_TEMPLATE, split_context_template
from gopro.settings import settings


@settings
class GOProReleaseConfig:
    """Settings of `gopro-release`."""

    template: str = DEFAULT_TEMPLATE
    """The words before {} initialise the context; what follows {} stays fixed."""
    sem: float = 1.0
    """Weight of the prompt consistency loss."""
    con: float = 0.1
    """Weight of the visual contrastive loss."""


class GOProRelease(ConditionalPrompts):
    """GOPro as its released code computes it (Singha, Jha, Banerjee, BMVC 2023, arXiv 2308.11605; repository
    mainaksingha01/GOPro).

    Learned: the context tokens; for each layer of the image tower, maps of (mu + sigma) / 2 and mu over its tokens to a
    style and a content vector in word-embedding space; the layer weights rho that sum these into one shift of all
    context tokens; a projector with batch norm for the contrastive loss, which no prediction uses. Published
    Base/New/HM on 11 data sets, ViT-B/16: 84.21/77.32/80.62.

    Logits, losses, gradients and the recipe, with Dassl's schedule, a cosine stepped once an epoch, are those of the
    code (tests/golden); docs/method.md lists what the paper describes differently, and the faults of the authors'
    harness that are not reproduced. Like the code, it draws AugMix at severity 1, where the AugMix paper has 3; see
    `gopro.data.images.augmix` for what differs.
    """

    recipe = Recipe(optimizer="sgd", lr=2e-3, epochs=50, batch=4)
    repository = Repository(
        name="mainaksingha01/GOPro",
        commit="e284586d2ca0e0f5c9b1f423edcfbe76abc49f67",
        files={"base-to-new": "configs/trainers/GOPro/vit_b16.yaml"},
    )
    grid = Grid({"lr": (5e-4, 2e-3, 5e-3), "epochs": (20, 50), "sem": (1.0, 10.0)})
    config: GOProReleaseConfig = GOProReleaseConfig()
    views = ("base", "moco", "augmix1")

    def __init__(
        self,
        backbone: Backbone,
        classnames: Sequence[str],
        config: GOProReleaseConfig,
        template: str = DEFAULT_TEMPLATE,
    ):
        super().__init__(backbone, classnames, config, template)
        words, _ = split_context_template(config.template)
        self.context = nn.Parameter(backbone.text.embed(words))  # [M, d]
        widths, dim = backbone.layer_widths, backbone.embed_dim
        self.maps = nn.ModuleDict(
            {
                name: nn.ModuleList(nn.Linear(width, backbone.text.width) for width in widths)
                for name in ("style", "content")
            }
        )
        rho = nn.Linear(len(widths), 1)  # for its initialisation: the authors' rho is this layer
        self.rho = nn.Parameter(rho.weight.detach()[None])  # [1, 1, L]
        self.rho_bias = nn.Parameter(rho.bias.detach()[None])  # [1, 1]
        self.project_beside = nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim))

    def view_contexts(self, encoded: Encoded) -> Float[Tensor, "views batch tokens width"]:
        """Return the context that each image of each view generates: the learned one plus the image's shift."""
        widths = self.backbone.layer_widths
        mean, std = encoded.mean.split(widths, dim=-1), encoded.std.split(widths, dim=-1)
        style = [(m + s) / 2 for m, s in zip(mean, std, strict=True)]
        features = sum(
            torch.stack([f(x) for f, x in zip(self.maps[name].children(), values, strict=True)], dim=-2)
            for name, values in (("style", style), ("content", mean))
        )  # [views, batch, layers, d]
        views = len(encoded.embedding)
        shift = torch.einsum("vml,vbld->vbmd", self.rho.expand(views, -1, -1), features / 2)
        return self.context + (shift + self.rho_bias.expand(views, -1)[:, None, :, None])

    def image_contexts(self, encoded: Encoded) -> Float[Tensor, "batch tokens width"]:
        return self.view_contexts(encoded[None])[0]

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        config, image = self.config, encoded.embedding
        if config.sem:
            text, *others = self.text_features(self.view_contexts(encoded))
        else:
            text, others = self.text_features(self.view_contexts(encoded)[0]), []
        logits = self.backbone.logit_scale * similarity(image[0], text)
        terms = {"ce": F.cross_entropy(logits, labels)}
        if config.sem:
            terms["sem"] = config.sem * torch.stack([F.mse_loss(text, other) for other in others]).sum()
        if config.con:
            pair = gather(image[0]), gather(image[1])
            if len(pair[0]) == 1:
                raise InputError("gopro-release: its batch norm takes no step of one image; use a larger --batch")
            terms["con"] = config.con * nt_xent(self.project_beside(pair[0]), self.project_beside(pair[1]))
        return terms
