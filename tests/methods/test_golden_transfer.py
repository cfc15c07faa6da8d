"""MMRL from ImageNet to EuroSAT on a ViT-B/16, with the logits of the authors' own code."""

import pytest
import torch
from open_clip import IMAGENET_CLASSNAMES
from torch import Tensor

from gopro.clip.backbone import from_openai
from gopro.methods.base import Method
from gopro.methods.registry import build_method
from tests.support.golden import EUROSAT, VIT_B16, deviation, drawn_images, drawn_parameters, random_clip, read_golden

PHOTO, SATELLITE = "a photo of a {}.", "a centered satellite photo of {}."


@pytest.fixture(scope="module")
def trained() -> Method:
    """Return MMRL for 20 classes of ImageNet with random learned tensors."""
    method = build_method("mmrl[alpha=0.6]", from_openai(random_clip(VIT_B16)), IMAGENET_CLASSNAMES[:20], PHOTO)
    method.load_state_dict(drawn_parameters({name: tensor.shape for name, tensor in method.named_parameters()}))
    return method.eval()


@torch.no_grad()
def logits(method: Method) -> Tensor:
    return method.logits(method.encode(drawn_images(4, 224)))


@pytest.mark.slow
def test_mmrl_from_imagenet_to_eurosat_is_the_authors(trained: Method) -> None:
    golden, _ = read_golden("transfer-mmrl")
    assert deviation(logits(trained), golden["imagenet"]) < 1e-5
    assert deviation(logits(trained.for_classes(EUROSAT, SATELLITE)), golden["eurosat"]) < 1e-5
    assert deviation(logits(trained.for_classes(EUROSAT)), golden["eurosat"]) > 1e-2, "ImageNet's prompt is another"
