"""GOPro: prompts generated from an image's style and content, trained with two self-supervised losses."""

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
from gopro.methods.conditional_prompts import ConditionalPrompts
from gopro.methods.kernel_residual import KernelResidual
from gopro.methods.losses import nt_xent, prompt_consistency
from gopro.methods.ood_gate import OODGate
from gopro.methods.recipe import Recipe
from gopro.methods.template import DEFAULT_TEMPLATE, LearnedWords, split_learned_words
from gopro.methods.zero_shot_text import zero_shot_text_features
from gopro.settings import NonNegativeFloat, PositiveInt, settings

SHARPNESS = 20.0
"""Decay of the text projector's corrections, exp(-20 (1 - cos)): 0.14 of a correction is left at a cosine of 0.9."""


@settings
class GOProConfig:
    """Settings of `gopro`."""

    template: str | None = None
    """The words before {} initialise the context, or those after it if there are none before it; the rest stays fixed.
    Frozen CLIP is that of the same prompt. null: each data set's own."""
    statistics: Literal["both", "style", "content", "none"] = "both"
    """Token statistics that shift the context: style (sigma) and content (mu), one of them, or none."""
    layers: PositiveInt | None = None
    """Number of last layers of the image tower whose statistics are used; null for all layers."""
    shift: Literal["token", "shared"] = "token"
    """One shift per context token, or one for all."""
    rho: Literal["view", "shared"] = "view"
    """Layer weights per view (the paper's figure), or one set for all views."""
    rank: PositiveInt | None = 8
    """Rank of the style and content maps; null for full rank."""
    projectors: Literal["inside", "image", "text"] = "inside"
    """Residual projectors on the way to the logits: image and text, or one of them."""
    projector_rank: PositiveInt | None = None
    """Rank of the linear projectors; null for full rank."""
    text_projector: Literal["kernel", "linear"] = "kernel"
    """One correction per trained class that decays with the distance from it, or a linear map of all text features."""
    compare: Literal["both", "moco", "augmix"] = "both"
    """Augmented views that an image is compared with; with both, the contrastive loss uses moco."""
    sem: float = 10.0
    """Weight of the prompt consistency loss."""
    sem_classes: PositiveInt | None = 8
    """Classes per step whose prompts the consistency loss compares, in rotation; null for all classes."""
    con: float = 0.3
    """Weight of the visual contrastive loss."""
    con_form: Literal["nt-xent", "supervised"] = "nt-xent"
    """Positives of the contrastive loss: the other view of an image, or all images of its class."""
    ce_views: float = 0.3
    """Weight of the cross-entropy of the other views' image features, with the text features of the plain view."""
    anchor_image: float = 64.0
    """Weight of 1 - cos between the image features and frozen CLIP's."""
    anchor_text: float = 128.0
    """Weight of 1 - cos between the text features and frozen CLIP's."""
    fade: NonNegativeFloat = 3.0
    """Exponent of the out-of-distribution gate, which leaves images unlike the training images to frozen CLIP: the
    larger, the more images. 0 turns the gate off."""


class GOPro(ConditionalPrompts):
    """Generate and optimize prompts with self-supervision (Singha, Jha, Banerjee, BMVC 2023, arXiv 2308.11605;
    repository mainaksingha01/GOPro).

    Learned: the context tokens; for each layer of the image tower, maps of its token statistics to a style and a
    content vector in word-embedding space; the layer weights rho that sum these into a shift of each context token;
    the projectors. Published Base/New/HM of the paper's method on 11 data sets, ViT-B/16: 84.21/77.32/80.62.

    It is not the paper's method but has additions of ours: `gopro-paper` is the abstract and the figure alone, as the
    paper's body was not available, and `gopro-release` the released code. Ours are: the words of the data set's own
    prompt as the initial context; the low rank of the maps, which are zero at initialisation, so that training starts
    from zero-shot CLIP; the text projector that corrects each trained class and decays away from it (`KernelResidual`);
    the gate that leaves out-of-distribution images to zero-shot CLIP with the prompt of the tested data set
    (`OODGate`); the cross-entropy of the other views; the losses that keep features near frozen CLIP's; a consistency
    loss over a few classes per step; the weights, chosen on validation images of emoji-objects at 4 shots; a recipe of
    five epochs with a cosine stepped with every batch, where the released code has SGD at 2e-3, batches of 4, 50 epochs
    and Dassl's schedule.

    Results on the embedded benchmark (docs/benchmark.md: 4 shots, 5 seeds): base/new/HM 72.9/43.9/54.8, compared with
    66.6/39.2/49.3 of PromptSRC, 57.8/39.9/47.2 of CoOp, 86.8/44.4/58.7 of Tip-Adapter and 50.1/44.4/47.0 of zero-shot
    CLIP; on other data sets 34.9 (31.1, 32.2, 34.8, 34.8), in other styles 50.2 (49.7, 48.5, 43.5, 50.4). A run
    of 43 to 109 classes takes 25 to 102 s on one shared core with cached views.
    """

    recipe = Recipe(optimizer="adamw", lr=1e-3, epochs=5, batch=4, warmup=0.25, schedule="step", drop_last=False)
    config: GOProConfig = GOProConfig()
    views = ("base", "moco", "augmix")

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: GOProConfig, template: str = DEFAULT_TEMPLATE
    ):
        super().__init__(backbone, classnames, config, template)
        self.views = ("base", "moco", "augmix") if config.compare == "both" else ("base", config.compare)
        self.context = nn.Parameter(backbone.text.embed(self._learned_words().words))  # [M, d]
        widths = self._last_layers(backbone.layer_widths)
        statistics = {"both": ("style", "content"), "none": ()}.get(config.statistics, (config.statistics,))
        self.maps = nn.ModuleDict(
            {name: nn.ModuleList(_zero_map(w, backbone.text.width, config.rank) for w in widths) for name in statistics}
        )
        if statistics:
            views = len(self.views) if config.rho == "view" else 1
            tokens = len(self.context) if config.shift == "token" else 1
            self.rho = nn.Parameter(torch.full((views, tokens, len(widths)), 1 / len(widths)))
            self.rho_bias = nn.Parameter(torch.zeros(views, tokens))
        dim = backbone.embed_dim
        if config.projectors != "text":
            self.project_image = _zero_map(dim, dim, config.projector_rank)
        if config.projectors != "image":
            if config.text_projector == "kernel":
                self.project_text = KernelResidual(self.frozen_text(), SHARPNESS)
            else:
                self.project_text = _zero_map(dim, dim, config.projector_rank)
        if config.fade:
            self.familiarity = OODGate(len(classnames), dim)
        self._next_class = 0  # in the rotation of sem_classes; 0 again after each epoch, so that resuming is exact

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self._frozen_text: Tensor | None = None

    def make_prompts(self, classnames: Sequence[str]) -> Prompts:
        text, learned = self.backbone.text, self._learned_words()
        length = len(text.tokens(learned.words))
        before, after = (0, length) if learned.behind else (length, 0)
        return make_prompts(text, classnames, before=before, after=after, tail=learned.tail)

    def _learned_words(self) -> LearnedWords:
        """Split the prompt of the data set that was trained on, which the context belongs to on other data sets too."""
        return split_learned_words(self.config.template or self.trained_template)

    @torch.no_grad()
    def frozen_text(self) -> Float[Tensor, "classes embed"]:
        """Return the zero-shot text features of the present data set's prompt; computed at the first call, in fp32."""
        if self._frozen_text is None:
            with torch.autocast(self.backbone.device.type, enabled=False):
                text = self.backbone.text
                self._frozen_text = zero_shot_text_features(text, self.classnames, self.zero_shot_template)
        return self._frozen_text

    def end_epoch(self, epoch: int, epochs: int) -> None:
        self._next_class = 0

    def _last_layers(self, values: Sequence[Any]) -> Sequence[Any]:
        """Keep only the last `config.layers` entries."""
        return values[-self.config.layers :] if self.config.layers else values

    def view_contexts(self, encoded: Encoded) -> Float[Tensor, "views batch tokens width"]:
        """Return the context that each image of each view generates: the learned one plus the image's shift."""
        views = encoded.embedding.shape[:2]
        if not self.maps:
            return self.context.expand(*views, -1, -1)
        widths = self.backbone.layer_widths
        mean, std = (self._last_layers(t.split(widths, dim=-1)) for t in (encoded.mean, encoded.std))
        values = {"style": std, "content": mean}
        features = sum(
            torch.stack([f(x) for f, x in zip(maps.children(), values[name], strict=True)], dim=-2)
            for name, maps in self.maps.items()
        )  # [views, batch, layers, d]
        rho = self.rho[: views[0]].expand(views[0], -1, -1)
        bias = self.rho_bias[: views[0]].expand(views[0], -1)
        shift = torch.einsum("vml,vbld->vbmd", rho, features) + bias[:, None, :, None]
        return self.context + shift

    def image_contexts(self, encoded: Encoded) -> Float[Tensor, "batch tokens width"]:
        return self.view_contexts(encoded[None])[0]

    def text_features(
        self, contexts: Float[Tensor, "*batch tokens width"], prompts: Prompts | None = None
    ) -> Float[Tensor, "*batch classes embed"]:
        """Return the projected unit text features under these contexts.

        Args:
            prompts: those of other classes than the method's own.
        """
        text = (prompts or self.prompts)(*self._place(contexts.flatten(0, -3))).unflatten(0, contexts.shape[:-2])
        return self._project_text(text)

    def _place(self, contexts: Float[Tensor, "batch tokens width"]) -> tuple[Tensor | None, Tensor | None]:
        """Return what stands before and after the class name: the contexts, and nothing."""
        return (None, contexts) if self.prompts.after else (contexts, None)

    def _project_text(self, text: Float[Tensor, "*batch embed"]) -> Float[Tensor, "*batch embed"]:
        if self.config.projectors == "image":
            return text
        return F.normalize(text + self.project_text(text), dim=-1)

    def image_features(self, encoded: Encoded) -> Float[Tensor, "*batch embed"]:
        image = encoded.embedding
        if self.config.projectors == "text":
            return image
        return F.normalize(image + self.project_image(image), dim=-1)

    def image_vectors(self, encoded: Encoded) -> Float[Tensor, "batch dim"]:
        """Return the image features; with `fade` times the gate, then frozen CLIP's times what is left of 1."""
        image = self.image_features(encoded)
        if not self.config.fade:
            return image
        gate = self._gate(encoded)
        return torch.cat([gate * image, (1 - gate) * encoded.embedding], dim=-1)

    def class_vectors(self, contexts: Float[Tensor, "batch tokens width"]) -> Float[Tensor, "batch classes dim"]:
        """Return the text features; with `fade`, then frozen CLIP's."""
        text = self.text_features(contexts)
        if not self.config.fade:
            return text
        return torch.cat([text, self.frozen_text().expand(len(text), -1, -1)], dim=-1)

    def logits(self, encoded: Encoded) -> Float[Tensor, "batch classes"]:
        # In chunks of classes: text features of all images and classes at once take batch · classes · D numbers.
        image, contexts = self.image_features(encoded), self.image_contexts(encoded)
        similarities = self.prompts.similarities(image, *self._place(contexts), transform=self._project_text)
        if self.config.fade:
            gate = self._gate(encoded)
            similarities = gate * similarities + (1 - gate) * similarity(encoded.embedding, self.frozen_text())
        return self.backbone.logit_scale * similarities

    def _gate(self, encoded: Encoded) -> Float[Tensor, "batch 1"]:
        """Return the weight of the learned prediction against frozen CLIP's, between 0 and 1."""
        return self.familiarity(encoded.embedding)[..., None] ** self.config.fade

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        config, scale = self.config, self.backbone.logit_scale
        image, contexts = self.image_features(encoded), self.view_contexts(encoded)
        if config.fade and self.training:
            self.familiarity.add(gather(encoded.embedding[0]), gather(labels))
        text, other_texts, classes = self._view_text_features(contexts)
        terms = {"ce": F.cross_entropy(scale * similarity(image[0], text), labels)}
        if config.sem:
            distances = [prompt_consistency(text[:, classes], other) for other in other_texts]
            terms["sem"] = config.sem * torch.stack(distances).sum()
        if config.ce_views:
            entropies = [F.cross_entropy(scale * similarity(other, text), labels) for other in image[1:]]
            terms["ce_views"] = config.ce_views * torch.stack(entropies).mean()
        if config.con:
            positives = gather(labels) if config.con_form == "supervised" else None
            terms["con"] = config.con * nt_xent(gather(image[0]), gather(image[1]), labels=positives)
        if config.anchor_image:
            terms["anchor_image"] = config.anchor_image * prompt_consistency(image, encoded.embedding)
        if config.anchor_text:
            terms["anchor_text"] = config.anchor_text * prompt_consistency(text, self.frozen_text())
        return terms

    def _view_text_features(
        self, contexts: Float[Tensor, "views batch tokens width"]
    ) -> tuple[Tensor, Sequence[Tensor], list[int] | slice]:
        """Return the plain view's text features of all classes, the other views' of some, and which classes these are.

        At each step the other views have the next `config.sem_classes` classes in rotation.
        """
        count, some = len(self.classnames), self.config.sem_classes
        if not self.config.sem:
            return self.text_features(contexts[0]), (), slice(None)
        if some is None or some >= count:  # one call for all views, so that one memory plan covers all activations
            text, *others = self.text_features(contexts)
            return text, others, slice(None)
        classes = [(self._next_class + i) % count for i in range(some)]
        self._next_class = (self._next_class + some) % count
        others = self.text_features(contexts[1:], self.prompts.subset(classes))
        return self.text_features(contexts[0]), others.unbind(), classes


def _zero_map(inputs: int, outputs: int, rank: int | None) -> nn.Module:
    """Return a linear map with bias, of full or low rank, whose output is zero at initialisation."""
    last = nn.Linear(rank or inputs, outputs)
    nn.init.zeros_(last.weight)
    nn.init.zeros_(last.bias)
    return last if rank is None else nn.Sequential(nn.Linear(inputs, rank, bias=False), last)
