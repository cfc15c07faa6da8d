"""Backbones in CLIP's cone."""

import pytest
import torch
from torch import Tensor

from gopro.clip.backbone import Backbone, load_backbone
from gopro.clip.cone import CLIP_COSINES, Cosines, measure_cosines, with_cone
from gopro.clip.prompted_image_tower import PromptedImageTower
from gopro.data.dataset import Dataset
from gopro.data.images.transforms import make_view
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.methods.parts.zero_shot_text import zero_shot_text_features
from tests.support.methods import NAMES, TEMPLATE, encode_noise


def first_images(data: Dataset, backbone: Backbone) -> Tensor:
    """Return a preprocessed test image of each class."""
    first = {sample.label: sample.image for sample in reversed(data.test)}
    view = make_view("eval", backbone.preprocess)
    return torch.stack([view(first[label].open().convert("RGB")) for label in range(len(data.classnames))])


@pytest.mark.parametrize(
    ("name", "source", "other"), [("emoji", "emoji-activities", "emoji-food:noto"), ("photo", "photos", None)]
)
def test_packaged_backbones_get_the_cosines_of_clip(name: str, source: str, other: str | None) -> None:
    backbone, data = load_backbone(name), load_dataset(source)
    images = first_images(data, backbone)

    def features(backbone: Backbone, data: Dataset, images: Tensor) -> tuple[Tensor, Tensor]:
        text = zero_shot_text_features(backbone.text, data.classnames, data.template)
        return backbone.encode(images).embedding, text

    plain = features(backbone, data, images)
    cone = with_cone(backbone, measure_cosines(*plain))
    inside = features(cone, data, images)
    assert measure_cosines(*inside) == pytest.approx(CLIP_COSINES, abs=1e-4)
    for unit in inside:
        torch.testing.assert_close(unit.norm(dim=-1), torch.ones(len(unit)))
    if other is not None:  # the figures hold beyond the images that they were measured on
        data = load_dataset(other)
        cosines = measure_cosines(*features(cone, data, first_images(data, cone)))
        assert 0.45 < cosines.images < 0.6 and 0.75 < cosines.texts < 0.93 and 0.25 < cosines.pairs < 0.35
    before, after = (model.logit_scale * image @ text.T for model, (image, text) in ((backbone, plain), (cone, inside)))
    constant = (after - before).mean()
    torch.testing.assert_close(after, before + constant, atol=1e-3, rtol=0)
    assert torch.equal(before.argmax(dim=-1), after.argmax(dim=-1))


NONE = Cosines(0, 0, 0)
"""Cosines of features that have nothing in common."""


def test_both_image_towers_give_the_same_features(tiny: Backbone) -> None:
    cone = with_cone(tiny, NONE)
    images = torch.randn(4, 3, 32, 32)
    prompted = PromptedImageTower(cone)(images, [torch.zeros(0, 64)])
    torch.testing.assert_close(prompted, cone.encode(images).embedding, atol=1e-6, rtol=1e-5)
    assert prompted.shape[-1] == cone.embed_dim == tiny.embed_dim + 2


def test_the_backbone_itself_does_not_change(tiny: Backbone) -> None:
    cone = with_cone(tiny, NONE)
    assert encode_noise(tiny, 2).embedding.shape[-1] == tiny.embed_dim == 32
    assert zero_shot_text_features(tiny.text, NAMES, TEMPLATE).shape[-1] == 32
    assert encode_noise(cone, 2).rows().shape[-1] == cone.row_width


def test_fingerprints_tell_cones_apart(tiny: Backbone) -> None:
    cones = (tiny, with_cone(tiny, NONE), with_cone(tiny, NONE, Cosines(0.5, 0.8, 0.3)))
    assert len({backbone.fingerprint() for backbone in cones}) == 3
    assert with_cone(tiny, NONE).fingerprint() == cones[1].fingerprint()


@pytest.mark.parametrize(
    ("own", "wanted", "message"),
    [
        (Cosines(0.6, 0.5, 0.3), CLIP_COSINES, "0.60 between images"),
        (Cosines(0.1, 0.9, 0.3), CLIP_COSINES, "0.90 between texts"),
        (NONE, Cosines(1.0, 0.8, 0.3), "below 1"),
        (NONE, Cosines(0.1, 0.1, 0.3), r"want one from -0\.10 to 0\.10"),
    ],
)
def test_cosines_out_of_reach_are_refused(own: Cosines, wanted: Cosines, message: str, tiny: Backbone) -> None:
    with pytest.raises(InputError, match=message):
        with_cone(tiny, own, wanted)
