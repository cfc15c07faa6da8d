"""GOPro as its paper describes it, with nothing added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.similarity import similarity
from gopro.clip.text.encode import make_prompts
from gopro.clip.text.prompts import Prompts
from gopro.distributed import gather
from gopro.methods.parts.conditional_prompts import ConditionalPrompts
from gopro.methods.parts.losses import nt_xent, prompt_consistency
from gopro.methods.parts.zero_shot_text import zero_shot_text_features
from gopro.methods.recipe import Grid, Recipe, Repository
from gopro.methods.template import DEFAULT_TEMPLATE, LearnedWords, split_learned_words
from gopro.settings import PositiveInt, settings


@settings
class GOProPaperConfig:
    """Settings of `gopro-paper`, of which `gopro` has more."""

    template: str | None = DEFAULT_TEMPLATE
    """The words before {} initialise the context, or those after it if there are none before it; the rest stays fixed.
    null: each data set's own."""
    statistics: Literal["both", "style", "content", "none"] = "both"
    """Token statistics that shift the context: style (sigma) and content (mu), one of them, or none."""
    layers: PositiveInt | None = None
    """Number of last layers of the image tower whose statistics are used; null for all layers."""
    shift: Literal["token", "shared"] = "token"
    """One shift per context token, or one for all."""
    rho: Literal["view", "shared"] = "view"
    """Layer weights per view (the paper's figure), or one set for all views."""
    rank: PositiveInt | None = None
    """Rank of the style and content maps; null for full rank."""
    projectors: Literal["inside", "image", "text"] = "inside"
    """Residual projectors on the way to the logits: image and text, or one of them."""
    projector_rank: PositiveInt | None = None
    """Rank of the linear projectors; null for full rank."""
    compare: Literal["both", "moco", "augmix"] = "both"
    """Augmented views that an image is compared with; with both, the contrastive loss uses moco."""
    sem: float = 1.0
    """Weight of the prompt consistency loss."""
    sem_classes: PositiveInt | None = None
    """Classes per step whose prompts the consistency loss compares, in rotation; null for all classes."""
    con: float = 0.1
    """Weight of the visual contrastive loss."""
    con_form: Literal["nt-xent", "supervised"] = "nt-xent"
    """Positives of the contrastive loss: the other view of an image, or all images of its class."""


class GOProPaper(ConditionalPrompts):
    """GOPro as its abstract and figure describe it (Singha, Jha, Banerjee, BMVC 2023, arXiv 2308.11605; repository
    mainaksingha01/GOPro), with nothing added.

    Learned: the context tokens; for each layer of the image tower, full maps of sigma (style) and mu (content) of its
    tokens to word-embedding space; for each view and context token, the layer weights rho that sum these into a shift
    of that token; a linear image and a linear text projector, whose outputs the logits compare. The loss is the sum of
    cross-entropy, 0.1 times NT-Xent between the vectors that the logits use for an image and its MoCo v3 view, and,
    for the MoCo v3 and the AugMix view alike, the mean over images and classes of 1 - cos between text features of
    image and view. Published Base/New/HM on 11 data sets, ViT-B/16: 84.21/77.32/80.62.

    The paper's body was not available. Choices that abstract and figure leave open, and ours: the maps and what the
    projectors add to their input are zero at initialisation, so that training starts from zero-shot CLIP; weight decay
    thus pulls the projectors towards the identity; style and content are summed; a context token has one rho per layer
    for both; the distance between prompts is 1 - cos; AugMix has the severity of its own paper, 3. Taken from the
    released code: the weights of the losses; the temperature of 0.1; the positive of an image, which is its MoCo v3
    view, among all other images and views; the initial context "a photo of a"; the recipe with Dassl's schedule, a
    cosine stepped once an epoch.

    `gopro-release` is the released code instead: one shift of all context tokens, one rho for all views, no text
    projector, an image projector that no logit uses, and the element-wise mean of squares as the distance between
    prompts. `gopro` has additions of ours, which its docstring lists.
    """

    recipe = Recipe(optimizer="sgd", lr=2e-3, epochs=50, batch=4)
    repository = Repository(
        name="mainaksingha01/GOPro",
        commit="e284586d2ca0e0f5c9b1f423edcfbe76abc49f67",
        files={"base-to-new": "configs/trainers/GOPro/vit_b16.yaml"},
    )
    grid = Grid({"lr": (2e-4, 6e-4, 2e-3), "epochs": (20, 50), "sem": (1.0, 10.0)})
    config: GOProPaperConfig = GOProPaperConfig()
    views = ("base", "moco", "augmix")

    def __init__(
        self, backbone: Backbone, classnames: Sequence[str], config: GOProPaperConfig, template: str = DEFAULT_TEMPLATE
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
            self.project_text = self.make_text_projector(dim)
        self._next_class = 0  # in the rotation of sem_classes; 0 again after each epoch, so that resuming is exact

    def set_classes(self, classnames: Sequence[str]) -> None:
        super().set_classes(classnames)
        self._frozen_text: Tensor | None = None

    def make_text_projector(self, dim: int) -> nn.Module:
        """Return what is added to text features [..., dim]; zero at initialisation."""
        return _zero_map(dim, dim, self.config.projector_rank)

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

    def logits(self, encoded: Encoded) -> Float[Tensor, "batch classes"]:
        return self.backbone.logit_scale * self.similarities(encoded)

    def similarities(self, encoded: Encoded) -> Float[Tensor, "batch classes"]:
        """Return the cosines of the image features with the text features that each image generates."""
        # In chunks of classes: text features of all images and classes at once take batch · classes · D numbers.
        image, contexts = self.image_features(encoded), self.image_contexts(encoded)
        return self.prompts.similarities(image, *self._place(contexts), transform=self._project_text)

    def losses(self, encoded: Encoded, labels: Int[Tensor, " batch"]) -> dict[str, Tensor]:
        config, scale = self.config, self.backbone.logit_scale
        image, contexts = self.image_features(encoded), self.view_contexts(encoded)
        text, other_texts, classes = self.view_text_features(contexts)
        terms = {"ce": F.cross_entropy(scale * similarity(image[0], text), labels)}
        if config.sem:
            terms["sem"] = self.prompt_consistency_loss(text[:, classes], other_texts)
        if config.con:
            positives = gather(labels) if config.con_form == "supervised" else None
            terms["con"] = self.contrastive_loss(image, positives)
        return terms | self.added_losses(encoded, labels, image, text)

    def prompt_consistency_loss(
        self, text: Float[Tensor, "batch classes embed"], others: Sequence[Float[Tensor, "batch classes embed"]]
    ) -> Float[Tensor, ""]:
        """Return the weighted distance of the plain view's text features from those of the other views."""
        return self.config.sem * torch.stack([prompt_consistency(text, other) for other in others]).sum()

    def contrastive_loss(
        self, image: Float[Tensor, "views batch embed"], labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, ""]:
        """Return the weighted contrastive loss between the plain view and the next, over the images of all devices.

        Args:
            labels: of the images of all devices, whose classes are then the positives.
        """
        return self.config.con * nt_xent(gather(image[0]), gather(image[1]), labels=labels)

    def added_losses(
        self,
        encoded: Encoded,
        labels: Int[Tensor, " batch"],
        image: Float[Tensor, "views batch embed"],
        text: Float[Tensor, "batch classes embed"],
    ) -> dict[str, Tensor]:
        """Return the loss terms that are not the paper's, already weighted: none here.

        Args:
            image: the image features of all views.
            text: the text features of the plain view.
        """
        return {}

    def view_text_features(
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
