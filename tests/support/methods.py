"""Perturb methods away from their initialisation, and encode random images for them."""

from typing import Any

import torch

from gopro.clip.backbone import Backbone
from gopro.methods.base import Method

NAMES = ["red fox", "owl", "grand piano", "dog", "very slow old train"]
TEMPLATE = "a photo of a {}."


def encode_noise(encoder: Backbone | Method, *batch: int, seed: int = 3) -> Any:
    """Encode images [*batch] of normal noise."""
    generator = torch.Generator().manual_seed(seed)
    return encoder.encode(torch.randn(*batch, 3, 32, 32, generator=generator))


def perturb(method: Method, size: float = 0.1) -> Method:
    """Add noise to every parameter, as a stand-in for training, and switch to evaluation."""
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    return method.eval()
