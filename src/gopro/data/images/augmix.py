"""AugMix with continuous levels, as its authors' code and GOPro's released code draw them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

CHAINS, LONGEST_CHAIN = 3, 3
LEAST_LEVEL = 0.1


class AugMix(v2.Transform):
    """AugMix (Hendrycks et al. 2020, arXiv 1912.02781) as in the released code of GOPro (`augmix` in
    `trainers/gopro.py`, `augmix_ops.py`).

    Three chains of one to three `OPERATIONS` are averaged with weights from Dirichlet(1, 1, 1), and the average is
    mixed with the image by a weight from Beta(1, 1). The level of each operation is uniform between 0.1 and
    `severity`, on a scale of 10.

    torchvision's `v2.AugMix` draws a whole number below `severity` instead, on a scale of 9. At severity 1 this is
    always 0, so it never shears, shifts or rotates.

    Differences from the released code: it mixes normalised values, which is the same but for our rounding to 8 bits;
    shifts are in proportion to the image's size, where it takes every image for 224 pixels wide.
    """

    def __init__(self, severity: float) -> None:
        super().__init__()
        self.severity = severity

    def transform(self, inpt: Image.Image, params: dict[str, Any]) -> Image.Image:
        # Normalised exponential variables are Dirichlet(1, ..., 1); Beta(1, 1) is uniform.
        weights = torch.empty(CHAINS).exponential_()
        chains = sum(
            np.asarray(self._chain(inpt), np.float32) * weight for weight in (weights / weights.sum()).tolist()
        )
        kept = torch.rand(()).item()
        mixture = kept * np.asarray(inpt, np.float32) + (1 - kept) * chains
        return Image.fromarray(mixture.round().clip(0, 255).astype(np.uint8))

    def _chain(self, image: Image.Image) -> Image.Image:
        operations = list(OPERATIONS.values())
        for _ in range(int(torch.randint(1, LONGEST_CHAIN + 1, ()))):
            operation = operations[int(torch.randint(len(operations), ()))]
            image = operation(image, torch.empty(()).uniform_(LEAST_LEVEL, self.severity).item())
        return image


def _rotate(image: Image.Image, level: float) -> Image.Image:
    return image.rotate(_sign() * int(3 * level), resample=Image.Resampling.BILINEAR)


def _shift(image: Image.Image, level: float, axis: int) -> Image.Image:
    offset = [0, 0]
    offset[axis] = _sign() * int(level / 30 * image.size[axis])
    return _warp(image, (1, 0, offset[0], 0, 1, offset[1]))


def _shear(image: Image.Image, level: float, axis: int) -> Image.Image:
    slope = [0.0, 0.0]
    slope[axis] = _sign() * 0.03 * level
    return _warp(image, (1, slope[0], 0, slope[1], 1, 0))


def _warp(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Map each output pixel to the input pixel that the 2 x 3 matrix says; black outside the image."""
    return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR)


def _sign() -> int:
    return 1 if torch.rand(()) < 0.5 else -1


OPERATIONS: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "autocontrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "posterize": lambda image, level: ImageOps.posterize(image, 4 - int(0.4 * level)),
    "rotate": _rotate,
    "solarize": lambda image, level: ImageOps.solarize(image, 256 - int(25.6 * level)),
    "shear x": lambda image, level: _shear(image, level, 0),
    "shear y": lambda image, level: _shear(image, level, 1),
    "shift x": lambda image, level: _shift(image, level, 0),
    "shift y": lambda image, level: _shift(image, level, 1),
}
"""The operations of AugMix, those that overlap ImageNet-C left out, by level from 0 to 10.

At level 10 they rotate by 30 degrees, shear by 0.3, shift by a third of the image, keep no bit per channel and invert
all values. Angles, shifts, bits and thresholds are rounded towards level 0.
"""
