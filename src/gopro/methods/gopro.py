"""GOPro: prompts generated out of an image's style and content, trained with two self-supervised losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.encode_text import make_prompts
from gopro.clip.prompts import Prompts
from gopro.clip.similarity import similarity
from gopro.distributed import gather
from gopro.errors import InputError
from gopro.methods.base import Method, split_context_template
from gopro.methods.kernel_residual import KernelResidual
from gopro.methods.losses import nt_xent, prompt_consistency
from gopro.methods.ood_gate import OODGate
from gopro.methods.recipe import Recipe
from gopro.settings import NonNegativeFloat, PositiveFloat, PositiveInt, settings


@settings
class GOProConfig:
    """Settings of `gopro`; the defaults are the preset of that name."""

    template: str = "a photo of a {}."
    """The words before {} are the context to start from; what follows {} stays fixed."""
    statistics: Literal["both", "style", "content", "none", "release"] = "both"
    """What shifts the context: style (sigma) and content (mu) of the layers, one of them, nothing, or as released
    (mu + sigma) / 2 and mu, averaged."""
    layers: PositiveInt | None = None
    """Layers of the image tower whose statistics are taken, counted from the last; all if none."""
    shift: Literal["token", "shared"] = "token"
    """One shift for each context token, or one for all."""
    rho: Literal["view", "shared"] = "view"
    """Layer weights of each view's own (the paper's figure), or one set for all views."""
    rank: PositiveInt | None = 8
    """Rank of the style and content maps; full maps if none."""
    projectors: Literal["inside", "image", "text", "outside"] = "inside"
    """Residual image and text projectors that the logits use, one of them, or one image projector beside the logits."""
    projector_rank: PositiveInt | None = None
    """Rank of the linear residual projectors; full maps if none."""
    text_projector: Literal["kernel", "linear"] = "kernel"
    """A correction of each trained class that fades with distance from it, or one linear map of all text features."""
    sharpness: float = 20.0
    """How fast the corrections fade: as exp(-sharpness (1 - cos))."""
    compare: Literal["both", "moco", "augmix"] = "both"
    """The views that an image is compared with; the contrastive loss takes the first of them."""
    sem: float = 10.0
    """Weight of the prompt consistency loss."""
    sem_form: Literal["cosine", "mse"] = "cosine"
    """1 - cos, or the released element-wise mean of squares."""
    sem_classes: PositiveInt | None = 8
    """Classes, taking turns, whose prompts the views are compared in at a step; all at each step if none."""
    con: float = 0.3
    """Weight of the visual contrastive loss."""
    con_form: Literal["nt-xent", "supervised"] = "nt-xent"
    """An image's other view against all else, or with the images of its class on its side."""
    temperature: PositiveFloat = 0.1
    """Of the visual contrastive loss."""
    ce_views: float = 0.3
    """Weight of the cross-entropy of the other views' image features, against the texts of the plain view."""
    anchor_image: float = 64.0
    """Weight of the image features' distance to frozen CLIP's, 1 - cos."""
    anchor_text: float = 128.0
    """Weight of the text features' distance to frozen CLIP's, 1 - cos."""
    fade: NonNegativeFloat = 3.0
    """How fast predictions go over to frozen CLIP's where images are unlike those trained on: the exponent of a
    image's familiarity, 0 to 1, by which it is left to what was learned. 0: never."""


RELEASE = GOProConfig(
    statistics="release",
    shift="shared",
    rho="shared",
    rank=None,
    projectors="outside",
    sem=1.0,
    sem_form="mse",
    sem_classes=None,
    con=0.1,
    ce_views=0.0,
    anchor_image=0.0,
    anchor_text=0.0,
    fade=0.0,
)
"""What the released code computes, without the faults of its harness."""


class GOPro(Method):
    """Generate and optimize prompts with self-supervision (Singha, Jha, Banerjee, BMVC 2023, arXiv 2308.11605;
    repository mainaksingha01/GOPro).

    Learned: the context tokens; for each layer of the image tower a map of its token statistics to a style and to a
    content vector in word-embedding space; the layer weights rho that sum them to a shift of each context token; the
    projectors. Published Base/New/HM on 11 data sets, ViT-B/16: 84.21/77.32/80.62.

    The paper's body was not available; where the released code and the abstract and figure differ, the defaults
    follow the latter and `RELEASE` the former. Ours beyond these: the zero-initialised maps (so that training starts at
    zero-shot CLIP), the low rank of those to the context, the text projector that corrects each trained class and fades
    away from it (`KernelResidual`), the fading over to frozen CLIP for unfamiliar images (`OODGate`), the
    cross-entropy of the other views, the distance to frozen CLIP and the recipe; the released code takes SGD at 2e-3,
    batches of 4 and 50 epochs. Weights were chosen on validation images of emoji-objects, 4 shots.

    Result in the embedded suite (docs/benchmark.md: 4 shots, 5 seeds): base/new/HM 72.9/43.9/54.8 where PromptSRC has
    66.6/39.5/49.6, CoOp 53.3/41.5/46.7 and zero-shot CLIP 50.1/44.4/47.0; other sets 34.9 (28.5, 32.1, 34.8), other
    styles 50.2 (49.3, 48.5, 50.4).
    Cost: 25 to 102 s a run of 43 to 109 classes on one shared core, its views from the bank; CoOp takes 10 to 34 s.
    """

    views = ("base", "moco", "augmix")
    recipe = Recipe(optimizer="adamw", lr=1e-3, epochs=5, batch=4, warmup=0.25)
    config: GOProConfig = GOProConfig()

    def __init__(self, backbone: Backbone, classnames: Sequence[str], config: GOProConfig):
        super().__init__(backbone, classnames, config)
        self.views = ("base", "moco", "augmix") if config.compare == "both" else ("base", config.compare)
        words, _ = split_context_template(config.template)
        self.context = nn.Parameter(backbone.text.embed(words))  # [M, d]
        width, inside = backbone.text.width, config.projectors != "outside"
        taken = self._taken(backbone.layer_widths)
        kinds = {"none": (), "style": ("style",), "content": ("content",)}.get(config.statistics, ("style", "content"))
        self.maps = nn.ModuleDict(
            {kind: nn.ModuleList(_map(w, width, config.rank, at_zero=inside) for w in taken) for kind in kinds}
        )
        views = len(self.views) if config.rho == "view" else 1
        tokens = len(self.context) if config.shift == "token" else 1
        if kinds:
            self.rho = nn.Parameter(torch.full((views, tokens, len(taken)), 1 / len(taken)))
            self.rho_bias = nn.Parameter(torch.zeros(views, tokens))
        dim = backbone.embed_dim
        if config.projectors in ("inside", "image"):
            self.project_image = _map(dim, dim, config.projector_rank, at_zero=True)
        if config.projectors in ("inside", "text"):
            if config.text_projector == "kernel":
                self.project_text = KernelResidual(self.frozen_text(), config.sharpness)
            else:
                self.project_text = _map(dim, dim, config.projector_rank, at_zero=True)
        if config.projectors == "outside":
            self.project_beside = nn.Sequential(nn.Linear(dim, dim), nn.BatchNorm1d(dim))
        if config.fade:
            self.familiarity = OODGate(len(classnames), dim)
        self._turn = 0  # which classes the views are compared in next; begun anew each epoch, so that resuming is exact

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        words, tail = split_context_template(self.config.template)
        text = self.backbone.text
        self.prompts = make_prompts(text, classnames, before=len(text.tokens(words)), tail=tail)
        self._frozen_text: Tensor | None = None

    @torch.no_grad()
    def frozen_text(self) -> Float[Tensor, "classes embed"]:
        """Frozen CLIP's text features of the template as written; computed once, when first asked for, in fp32."""
        if self._frozen_text is None:
            words, _ = split_context_template(self.config.template)
            with torch.autocast(self.backbone.device.type, enabled=False):
                self._frozen_text = self.prompts(self.backbone.text.embed(words))[0]
        return self._frozen_text

    def end_epoch(self, epoch: int, epochs: int) -> None:
        self._turn = 0

    def _taken(self, of_layers: Sequence[Any]) -> Sequence[Any]:
        """Of something a layer what is of the layers that are taken."""
        return of_layers[-self.config.layers :] if self.config.layers else of_layers

    def contexts(self, encoded: Encoded) -> Float[Tensor, "views batch tokens width"]:
        """The context that each image of each view generates: the learned one plus its shift."""
        views = encoded.embedding.shape[:2]
        if not self.maps:
            return self.context.expand(*views, -1, -1)
        widths = self.backbone.layer_widths
        mean, std = (self._taken(t.split(widths, dim=-1)) for t in (encoded.mean, encoded.std))
        of = {"style": std, "content": mean}
        if self.config.statistics == "release":
            of["style"] = [(m + s) / 2 for m, s in zip(mean, std, strict=True)]
        features = sum(
            torch.stack([f(x) for f, x in zip(maps.children(), of[kind], strict=True)], dim=-2)
            for kind, maps in self.maps.items()
        )  # [views, batch, layers, d]
        if self.config.statistics == "release":
            features = features / 2
        rho = self.rho[: views[0]].expand(views[0], -1, -1)
        bias = self.rho_bias[: views[0]].expand(views[0], -1)
        shift = torch.einsum("vml,vbld->vbmd", rho, features) + bias[:, None, :, None]
        return self.context + shift

    def image_contexts(self, encoded: Encoded) -> Float[Tensor, "batch tokens width"]:
        return self.contexts(encoded[None])[0]

    def text_features(
        self, contexts: Float[Tensor, "*batch tokens width"], prompts: Prompts | None = None
    ) -> Float[Tensor, "*batch classes embed"]:
        """Unit text features, as the logits use them, of every class (or of other prompts) under these contexts."""
        text = (prompts or self.prompts)(contexts.flatten(0, -3)).unflatten(0, contexts.shape[:-2])
        return self._shared_space(text)

    def _shared_space(self, text: Float[Tensor, "*batch embed"]) -> Float[Tensor, "*batch embed"]:
        if self.config.projectors in ("outside", "image"):
            return text
        return F.normalize(text + self.project_text(text), dim=-1)

    def image_features(self, encoded: Encoded) -> Float[Tensor, "*batch embed"]:
        """The unit image features that the logits use."""
        image = encoded.embedding
        if self.config.projectors in ("outside", "text"):
            return image
        return F.normalize(image + self.project_image(image), dim=-1)

    def image_vectors(self, encoded: Encoded) -> Float[Tensor, "batch dim"]:
        """The image features; with `fade`, as far as the image is familiar, and behind them frozen CLIP's for the
        rest."""
        image = self.image_features(encoded)
        if not self.config.fade:
            return image
        share = self._share(encoded)
        return torch.cat([share * image, (1 - share) * encoded.embedding], dim=-1)

    def class_vectors(self, contexts: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch classes dim"]:
        """The text features; with `fade`, frozen CLIP's behind them."""
        text = self.text_features(contexts)
        if not self.config.fade:
            return text
        return torch.cat([text, self.frozen_text().expand(len(text), -1, -1)], dim=-1)

    def logits(self, encoded: Encoded) -> Float[Tensor, "batch classes"]:
        """As by default, without all classes' vectors at once."""
        image, contexts = self.image_features(encoded), self.image_contexts(encoded)
        similarities = self.prompts.similarities(image, contexts, transform=self._shared_space)
        if self.config.fade:
            share = self._share(encoded)
            similarities = share * similarities + (1 - share) * similarity(encoded.embedding, self.frozen_text())
        return self.backbone.logit_scale * similarities

    def _share(self, encoded: Encoded) -> Float[Tensor, "batch 1"]:
        """What of a prediction is left to what was learned."""
        return self.familiarity(encoded.embedding)[..., None] ** self.config.fade

    def _logits(self, image: Tensor, text: Tensor) -> Tensor:
        return self.backbone.logit_scale * similarity(image, text)

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        config, image, contexts = self.config, self.image_features(encoded), self.contexts(encoded)
        if config.fade and self.training:
            self.familiarity.see(gather(encoded.embedding[0]), gather(labels))
        text, others, classes = self._texts(contexts)
        terms = {"ce": F.cross_entropy(self._logits(image[0], text), labels)}
        if config.sem:
            distance = prompt_consistency if config.sem_form == "cosine" else F.mse_loss
            terms["sem"] = config.sem * torch.stack([distance(text[:, classes], other) for other in others]).sum()
        if config.ce_views:
            others = [F.cross_entropy(self._logits(other, text), labels) for other in image[1:]]
            terms["ce_views"] = config.ce_views * torch.stack(others).mean()
        if config.con:
            pair = gather(image[0]), gather(image[1])
            if config.projectors == "outside":
                if len(pair[0]) == 1:
                    raise InputError(
                        "projectors=outside: its batch norm takes no step of one image: use a larger --batch"
                    )
                pair = self.project_beside(pair[0]), self.project_beside(pair[1])
            same = gather(labels) if config.con_form == "supervised" else None
            terms["con"] = config.con * nt_xent(*pair, config.temperature, labels=same)
        if config.anchor_image:
            terms["anchor_image"] = config.anchor_image * prompt_consistency(image, encoded.embedding)
        if config.anchor_text:
            terms["anchor_text"] = config.anchor_text * prompt_consistency(text, self.frozen_text())
        return terms

    def _texts(
        self, contexts: Float[Tensor, "views batch tokens width"]
    ) -> tuple[Tensor, Sequence[Tensor], list[int] | slice]:
        """The text features of all classes that the plain view generates, those that each of the other views does, and
        the classes that the latter are of: all, or some that take turns."""
        count, many = len(self.classnames), self.config.sem_classes
        if not self.config.sem:
            return self.text_features(contexts[0]), (), slice(None)
        if many is None or many >= count:  # in one call, so that they share the memory given to activations
            text, *others = self.text_features(contexts)
            return text, others, slice(None)
        classes = [(self._turn + i) % count for i in range(many)]
        self._turn = (self._turn + many) % count
        others = self.text_features(contexts[1:], self.prompts.subset(classes))
        return self.text_features(contexts[0]), others.unbind(), classes


class GOProRelease(GOPro):
    """GOPro with the released code's settings and training recipe."""

    recipe = Recipe(optimizer="sgd", lr=2e-3, epochs=50, batch=4)
    config = RELEASE


def _map(inputs: int, outputs: int, rank: int | None, *, at_zero: bool) -> nn.Module:
    """A linear map with bias, of full or low rank, that starts at zero or as torch starts it."""
    last = nn.Linear(rank or inputs, outputs)
    if at_zero:
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return last if rank is None else nn.Sequential(nn.Linear(inputs, rank, bias=False), last)
