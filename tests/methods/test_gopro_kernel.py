"""`gopro-kernel`: its losses, its kernel, and that older runs of `gopro` are of it."""

import math

import pytest
import torch
import torch.nn.functional as F

from gopro.clip.backbone import Backbone
from gopro.clip.text.encode import encode_texts
from gopro.methods.gopro_kernel import GOProKernel
from gopro.methods.parts.kernel_residual import KernelResidual
from gopro.methods.registry import build_method
from tests.support.methods import NAMES, TEMPLATE, encode_noise, perturb


@pytest.mark.parametrize("off", ["sem", "con", "ce_views", "anchor_image", "anchor_text"])
def test_a_weight_of_zero_turns_a_loss_off(off: str, tiny: Backbone) -> None:
    specs = "gopro-kernel", f"gopro-kernel[{off}=0]"
    on, method = (perturb(build_method(spec, tiny, NAMES, TEMPLATE)) for spec in specs)
    views, labels = encode_noise(tiny, 3, 4), torch.tensor([0, 1, 2, 3])
    assert set(on.losses(views, labels)) - set(method.losses(views, labels)) == {off}


def test_the_anchors_are_the_distance_to_frozen_clip(tiny: Backbone) -> None:
    labels, views = torch.tensor([0, 1, 2, 3]), encode_noise(tiny, 3, 4)
    method = build_method("gopro-kernel[anchor_image=2,anchor_text=3]", tiny, NAMES, TEMPLATE)
    losses = method.losses(views, labels)
    assert losses["anchor_image"].item() == pytest.approx(0, abs=1e-5)  # it starts at zero-shot CLIP
    assert losses["anchor_text"].item() == pytest.approx(0, abs=1e-5)
    method = perturb(method)
    assert isinstance(method, GOProKernel)
    frozen = encode_texts(tiny.text, [TEMPLATE.format(name) for name in NAMES])
    text = 1 - torch.cosine_similarity(method.text_features(method.view_contexts(views)[0]), frozen, dim=-1)
    image = 1 - torch.cosine_similarity(method.image_features(views), views.embedding, dim=-1)
    losses = method.losses(views, labels)
    torch.testing.assert_close(losses["anchor_image"], 2 * image.mean())
    torch.testing.assert_close(losses["anchor_text"], 3 * text.mean())


def test_it_starts_at_zero_shot_clip(tiny: Backbone) -> None:
    method = build_method("gopro-kernel", tiny, NAMES, TEMPLATE)
    zeroshot, images = build_method("zeroshot", tiny, NAMES, TEMPLATE), encode_noise(tiny, 3)
    torch.testing.assert_close(method.logits(images), zeroshot.logits(images), atol=1e-4, rtol=1e-4)


def test_a_kernel_correction_decays_with_distance_from_its_class() -> None:
    centres = F.normalize(torch.randn(3, 16, generator=torch.Generator().manual_seed(0)), dim=-1)
    residual = KernelResidual(centres, sharpness=20)
    assert residual(centres).abs().max() == 0
    with torch.no_grad():
        residual.values[1] = 2.0
    x = F.normalize(torch.randn(5, 16, generator=torch.Generator().manual_seed(1)), dim=-1)
    for row, found in zip(x, residual(x), strict=True):
        expected = 2.0 * math.exp(-20 * (1 - float(row @ centres[1])))
        torch.testing.assert_close(found, torch.full((16,), expected))
    torch.testing.assert_close(residual(centres[1]), torch.full((16,), 2.0))
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(residual(x), residual(x.float()))
        assert residual(x.bfloat16()).dtype == torch.float32
