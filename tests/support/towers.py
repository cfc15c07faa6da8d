"""Backbones of random weights with various image towers, and images for them."""

from __future__ import annotations

import open_clip
import torch
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.data.images.transforms import Preprocess


def images(*batch: int) -> Tensor:
    """Return images [*batch] of normal noise."""
    return torch.randn(*batch, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def random_backbone(**vision: object) -> Backbone:
    """Return a backbone with this image tower and a text tower of 2 layers."""
    text = {"layers": 2, "width": 32, "heads": 2, "context_length": 40}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = open_clip.CLIP(24, {"image_size": 32, **vision}, text)  # pyright: ignore
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    preprocess = Preprocess(size=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    return Backbone("some", model, open_clip.SimpleTokenizer(), preprocess)


def vit(**vision: object) -> Backbone:
    """Return a backbone whose image tower is a ViT of 3 layers."""
    return random_backbone(layers=3, width=64, patch_size=8, **vision)
