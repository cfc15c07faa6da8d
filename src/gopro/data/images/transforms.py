"""Views of an image: the evaluation view and the random views that training compares.

Every view maps an 8-bit RGB PIL image to the input of the image tower. All steps but the last work on 8-bit values;
the last converts to float and normalises for the backbone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from gopro.data.dataset import CROP
from gopro.data.images.augmix import AugMix
from gopro.errors import InputError

ViewName = Literal["eval", "base", "moco", "augmix", "augmix1"]
View = Callable[[Image.Image], Tensor]

VIEW_VERSION = 1
"""Raise this when the same image and seed give another view than before: cached features are then encoded again."""

_ASPECTS = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing that a backbone expects: the fields of open_clip's preprocess config that matter here.

    Raises:
        InputError: an interpolation or resize mode that is not supported.
    """

    size: int
    """Side of the square image, in pixels."""
    mean: tuple[float, float, float]
    """Mean of each channel, for values in 0 to 1."""
    std: tuple[float, float, float]
    """Standard deviation of each channel."""
    interpolation: str = "bicubic"
    """`bicubic` or `bilinear`; `random` (of a training config) is taken as bicubic, as in open_clip."""
    resize_mode: str = "shortest"
    """`shortest`: the shorter side is resized and the centre cropped; `squash`: both sides are resized."""

    def __post_init__(self) -> None:
        if self.interpolation not in ("bicubic", "bilinear", "random"):
            raise InputError(f"preprocess interpolation {self.interpolation!r}: use bicubic or bilinear")
        if self.resize_mode not in ("shortest", "squash"):
            raise InputError(f"preprocess resize_mode {self.resize_mode!r}: use shortest or squash")


def make_view(name: ViewName, preprocess: Preprocess, crop: float = CROP) -> View:
    """Make the view `name`: PIL image (mode RGB) to normalised float32 tensor [3, size, size].

    - `eval`: open_clip's evaluation transform.
    - `base`: random resized crop (area `crop` to 1) and horizontal flip, as CoOp trains.
    - `moco`: the first of MoCo v3's two augmentations (Chen et al. 2021, arXiv 2104.02057; `augmentation1` of
      `main_moco.py` in facebookresearch/moco-v3), which GOPro's released code uses: crop, colour jitter
      with probability 0.8, grey with 0.2, blur always, flip. Two differences: the crop is resized with the backbone's
      interpolation, and the blur, designed for 224 pixels, scales with the size.
    - `augmix`: the base view's crop and flip, then AugMix (Hendrycks et al. 2020, arXiv 1912.02781) with the paper's
      settings: 3 chains of 1 to 3 operations, alpha 1, severity 3, without the operations that overlap ImageNet-C.
    - `augmix1`: the same crop and flip, then AugMix at severity 1, as GOPro's released code draws it.

    The random views draw from torch's global generator; `draw_view` seeds it.

    Raises:
        InputError: no such view, or a `crop` outside (0, 1].
    """
    pixels = make_pixel_view(name, preprocess, crop)
    return v2.Compose([pixels, partial(normalize, preprocess=preprocess)])


def make_pixel_view(name: ViewName, preprocess: Preprocess, crop: float = CROP) -> View:
    """Make the view `name` before it is normalised: PIL image (mode RGB) to uint8 tensor [3, size, size].

    `normalize` makes the result of `make_view` of it, bit by bit.

    Raises:
        InputError: as `make_view`.
    """
    if name not in get_args(ViewName):
        raise InputError(f"view {name!r}: choose one of {', '.join(get_args(ViewName))}")
    if not 0 < crop <= 1:
        raise InputError(f"crop is {crop}: give a share of the area above 0 and at most 1")
    size = preprocess.size
    mode = v2.InterpolationMode.BILINEAR if preprocess.interpolation == "bilinear" else v2.InterpolationMode.BICUBIC
    cropped: list[Any] = [
        partial(shrink_for_crops, size=size),
        v2.RandomResizedCrop(size, scale=(crop, 1.0), ratio=_ASPECTS, interpolation=mode),
    ]
    flip = v2.RandomHorizontalFlip()
    steps: dict[ViewName, list[Any]] = {
        "eval": [v2.Resize((size, size), interpolation=mode)]
        if preprocess.resize_mode == "squash"
        else [v2.Resize(size, interpolation=mode), v2.CenterCrop(size)],
        "base": [*cropped, flip],
        "moco": [
            *cropped,
            v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)], p=0.8),
            v2.RandomGrayscale(p=0.2),
            RandomBlur(0.1 * size / 224, 2.0 * size / 224),
            flip,
        ],
        "augmix": [*cropped, flip, v2.AugMix(severity=3, mixture_width=3, chain_depth=-1, alpha=1.0, all_ops=False)],
        "augmix1": [*cropped, flip, AugMix(severity=1)],
    }
    return v2.Compose([*steps[name], v2.PILToTensor()])


def normalize(
    pixels: UInt8[Tensor, "*batch 3 size size"], preprocess: Preprocess
) -> Float[Tensor, "*batch 3 size size"]:
    """Normalise 8-bit views for a backbone, in fp32."""
    values = F.to_dtype(pixels, torch.float32, scale=True)
    return F.normalize(values, list(preprocess.mean), list(preprocess.std), inplace=True)


def draw_view(view: View, image: Image.Image, *key: int | str) -> Tensor:
    """Draw a random view that depends on the image and `key` alone; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would seed the accelerators too, which fork_rng(devices=[]) does not restore.
        torch.default_generator.manual_seed(stable_seed(*key))
        return view(image)


def stable_seed(*key: int | str) -> int:
    """Derive a seed in 0 to 2^63 - 1 from the key alone; unlike hash(), it is the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def shrink_for_crops(image: Image.Image, size: int) -> Image.Image:
    """Shrink an image by a whole factor, so far that no random crop of it has to be enlarged to `size`.

    The smallest usual crop has 0.08 of the area and an aspect ratio of 3:4 at most: its short side is at least
    sqrt(0.08 · 3 / 4) = 0.24 of the image's short side. A short side of 4 · size is therefore enough. Idempotent.
    """
    factor = min(image.size) // (4 * size)
    return image.reduce(factor) if factor > 1 else image


class RandomBlur(v2.Transform):
    """Gaussian blur of a PIL image with a uniformly drawn standard deviation, as in SimCLR and MoCo v3.

    Both use PIL's blur, which at 224 pixels is over twenty times as fast as torchvision's.
    """

    def __init__(self, least: float, most: float) -> None:
        """Take the smallest and the largest standard deviation, in pixels."""
        super().__init__()
        self.least, self.most = least, most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"sigma": float(torch.empty(()).uniform_(self.least, self.most))}

    def transform(self, inpt: Image.Image, params: dict[str, Any]) -> Image.Image:
        return inpt.filter(ImageFilter.GaussianBlur(params["sigma"]))
