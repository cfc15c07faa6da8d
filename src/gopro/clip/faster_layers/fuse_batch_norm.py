"""Batch norm folded into the convolutions before it, for a frozen EfficientNet of timm."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

_PAIRS = {
    "EfficientNet": (("conv_stem", "bn1"), ("conv_head", "bn2")),
    "ConvBnAct": (("conv", "bn1"),),
    "DepthwiseSeparableConv": (("conv_dw", "bn1"), ("conv_pw", "bn2")),
    "InvertedResidual": (("conv_pw", "bn1"), ("conv_dw", "bn2"), ("conv_pwl", "bn3")),
    "EdgeResidual": (("conv_exp", "bn1"), ("conv_pwl", "bn2")),
}
"""Convolutions and the batch norms that follow them, by timm's class (timm.models._efficientnet_blocks, timm 1.0)."""


def is_efficientnet(visual: Any) -> bool:
    """Return whether an open_clip image tower is an EfficientNet of timm."""
    return type(getattr(visual, "trunk", None)).__name__ == "EfficientNet"


def fuse_batch_norm(visual: Any) -> None:
    """Fold every batch norm of a frozen EfficientNet into its convolution, in place.

    With the mean and variance of the training images, batch norm is a scale and a shift per channel, which weights and
    a bias of the convolution express as well. It leaves the activation that timm keeps in the same module.
    """
    for module in list(visual.trunk.modules()):
        for convolution, norm in _PAIRS.get(type(module).__name__, ()):
            before, after = getattr(module, convolution), getattr(module, norm)
            if isinstance(before, nn.Conv2d) and isinstance(after, nn.BatchNorm2d):
                setattr(module, convolution, fuse_conv_bn_eval(before, after))
                setattr(module, norm, getattr(after, "act", nn.Identity()))
