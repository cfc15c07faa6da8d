"""Convolutions of a frozen image tower in forms that torch computes faster and that give the same features."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gopro.clip.faster_layers.onednn_products import frozen_linear


class PointwiseConv2d(nn.Conv2d):
    """A 1 x 1 convolution that oneDNN computes on a CPU, whatever the number of threads.

    With one thread, torch gives 1 x 1 convolutions of fewer than 16 images to a kernel of its own, unless they are
    dilated (`use_mkldnn` in ATen/native/Convolution.cpp). A kernel of one pixel has nothing to spread, so a dilation of
    2 changes nothing else. One core encodes an image in 14.4 ms of CPU time instead of 30.4 (Lite2 at 260 pixels), and
    in 7.8 instead of 17.5 (Lite0 at 224 pixels).

    For a single image oneDNN's convolution has slow kernels at some sizes. A 1 x 1 convolution of a channels-last image
    is a matrix product of its pixels, for which `frozen_linear` takes the library that is faster on this processor. An
    image by itself then takes 39.5 ms of CPU time, instead of 55.6 (Lite2, one core of a busy Intel Xeon with AVX-512).
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu" or torch.compiler.is_exporting():
            return self._convolve(input, dilation=1)
        if len(input) != 1 or self.stride != (1, 1) or self.groups > 1:
            return self._convolve(input, dilation=2)
        pixels = input.permute(0, 2, 3, 1)  # [1, H, W, C], a view
        return frozen_linear(pixels, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)

    def _convolve(self, input: Tensor, dilation: int) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, self.stride, 0, dilation, self.groups)


def use_onednn(visual: nn.Module) -> None:
    """Make every 1 x 1 convolution of an image tower a `PointwiseConv2d`, in place."""
    for module in visual.modules():
        for name, convolution in list(module.named_children()):
            if type(convolution) is nn.Conv2d and convolution.kernel_size == (1, 1) and convolution.padding == (0, 0):
                setattr(module, name, _copy(PointwiseConv2d, convolution, padding=0))


def pad_symmetrically(visual: Any) -> None:
    """Rotate the kernels of an EfficientNet and its images by 180 degrees, in place, if that saves the padding.

    TensorFlow pads a convolution of stride 2 with one pixel more behind than before, which torch's convolutions cannot,
    so timm copies the whole input into a larger tensor. In the rotated image the odd pixel comes first. A convolution
    that pads both sides equally then starts at the same pixel and never reaches the padding behind. Pooled features
    and statistics over positions do not depend on the rotation. It saves a tenth of the time of EfficientNet-Lite.
    """
    convolutions = [module for module in visual.trunk.modules() if isinstance(module, nn.Conv2d)]
    if not any(map(_is_padded_ahead, convolutions)) or not all(map(_may_be_rotated, convolutions)):
        return
    for convolution in convolutions:
        convolution.weight.data = convolution.weight.flip(-1, -2)
    for module in visual.trunk.modules():
        for name, convolution in list(module.named_children()):
            if isinstance(convolution, nn.Conv2d) and _is_padded_ahead(convolution):
                setattr(module, name, _copy(nn.Conv2d, convolution, padding=convolution.kernel_size[0] // 2))
    visual.trunk.conv_stem.register_forward_pre_hook(_rotate)


def _is_padded_ahead(convolution: nn.Conv2d) -> bool:
    """Return whether a convolution of timm copies its input into a larger tensor as TensorFlow pads it."""
    return type(convolution).__name__ == "Conv2dSame"


def _may_be_rotated(convolution: nn.Conv2d) -> bool:
    """Return whether the convolution has the same result on rotated images, rotated, with equal padding."""
    (kernel, other), stride = convolution.kernel_size, convolution.stride
    if kernel != other or kernel % 2 == 0 or convolution.dilation != (1, 1):
        return False
    if _is_padded_ahead(convolution):
        return kernel > 1 and stride in ((1, 1), (2, 2))
    return stride == (1, 1) and convolution.padding == (kernel // 2, kernel // 2)


def _rotate(module: nn.Module, arguments: tuple[Tensor]) -> Tensor:
    return arguments[0].flip(-1, -2)


def _copy(kind: type[nn.Conv2d], convolution: nn.Conv2d, padding: int) -> nn.Conv2d:
    """Return a convolution of another class and padding with the same parameters."""
    inputs, outputs, kernel = convolution.in_channels, convolution.out_channels, convolution.kernel_size
    with torch.device("meta"):
        copy = kind(inputs, outputs, kernel, convolution.stride, padding, 1, convolution.groups)  # pyright: ignore
    copy.weight, copy.bias = convolution.weight, convolution.bias
    return copy.train(convolution.training)
