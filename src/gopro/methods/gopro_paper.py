"""GOPro as its paper describes it, with nothing added."""

from __future__ import annotations

from gopro.methods.gopro import GOPro, GOProConfig
from gopro.methods.recipe import Recipe, Repository
from gopro.methods.template import DEFAULT_TEMPLATE


class GOProPaper(GOPro):
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
    config = GOProConfig(
        template=DEFAULT_TEMPLATE,
        rank=None,
        text_projector="linear",
        sem=1.0,
        sem_classes=None,
        con=0.1,
        ce_views=0.0,
        anchor_image=0.0,
        anchor_text=0.0,
        fade=0.0,
    )
