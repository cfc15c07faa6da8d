"""Views of an image: the evaluation view, and the random ones that training compares.

Every view maps an 8-bit RGB PIL image to what the image tower takes. All of it is done on 8-bit values; only the last
step makes floats and normalises them for the backbone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from PIL import Image, ImageFilter
from torch import Tensor
from torchvision.transforms import v2

from gopro.errors import InputError

ViewName = Literal["eval", "base", "moco", "augmix"]
View = Callable[[Image.Image], Tensor]

RECIPE = 1
"""To be raised when the same image and seed come to give another view, so that kept features are made anew."""

CROP = 0.08
"""Least share of an image's area that a random view shows, as CoOp trains; a data set may say otherwise."""

_ASPECTS = (3 / 4, 4 / 3)


@dataclass(frozen=True)
class Preprocess:
    """What a backbone wants its images to be: the fields of open_clip's preprocess config that matter here.

    Raises:
        InputError: an interpolation or resize mode that is not handled.
    """

    size: int
    """Side of the square image, in pixels."""
    mean: tuple[float, float, float]
    """Mean of each channel, of values in 0 … 1."""
    std: tuple[float, float, float]
    """Standard deviation of each channel."""
    interpolation: str = "bicubic"
    """`bicubic` or `bilinear`; `random` (of a training config) means bicubic, as in open_clip."""
    resize_mode: str = "shortest"
    """`shortest`: the shorter side is resized and the centre cut out; `squash`: both sides are."""

    def __post_init__(self) -> None:
        if self.interpolation not in ("bicubic", "bilinear", "random"):
            raise InputError(f"preprocess interpolation {self.interpolation!r}: only bicubic and bilinear are handled")
        if self.resize_mode not in ("shortest", "squash"):
            raise InputError(f"preprocess resize_mode {self.resize_mode!r}: only shortest and squash are handled")


def make_view(name: ViewName, preprocess: Preprocess, crop: float = CROP) -> View:
    """The view `name` of a PIL image (mode RGB) as a normalised float32 tensor [3, size, size].

    - `eval`: open_clip's evaluation transform.
    - `base`: random resized crop (area `crop` to 1) and horizontal flip, as CoOp trains.
    - `moco`: the first of MoCo v3's two augmentations (Chen et al. 2021, arXiv 2104.02057; `augmentation1` of
      `main_moco.py` in facebookresearch/moco-v3), which is the one GOPro's released code takes: crop, colour jitter
      with probability 0.8, grey with 0.2, blur always, flip. Two departures: the crop is resized with the backbone's
      interpolation, and the blur, meant for 224 pixels, scales with the size.
    - `augmix`: the base view's crop and flip, then AugMix (Hendrycks et al. 2020, arXiv 1912.02781) with the paper's
      settings: 3 chains of 1 to 3 operations, alpha 1, severity 3, without the operations that ImageNet-C overlaps.

    The random views draw from torch's global generator; see `seeded`.

    Raises:
        InputError: no such view; a `crop` that is no share above 0.
    """
    if name not in get_args(ViewName):
        raise InputError(f"view {name!r}: choose one of {', '.join(get_args(ViewName))}")
    if not 0 < crop <= 1:
        raise InputError(f"crop is {crop}: give a share of the area above 0, at most 1")
    size = preprocess.size
    mode = v2.InterpolationMode.BILINEAR if preprocess.interpolation == "bilinear" else v2.InterpolationMode.BICUBIC
    cropped: list[Any] = [
        partial(reduced, size=size),
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
    }
    to_tensor = [
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(list(preprocess.mean), list(preprocess.std)),
    ]
    return v2.Compose([*steps[name], *to_tensor])


def seeded(view: View, image: Image.Image, *key: int | str) -> Float[Tensor, "3 size size"]:
    """The view as drawn for `key` alone, whatever was drawn before; torch's global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it would seed the accelerators too, which fork_rng(devices=[]) does not restore.
        torch.default_generator.manual_seed(stable_seed(*key))
        return view(image)


def stable_seed(*key: int | str) -> int:
    """A seed in 0 … 2^63 - 1 that depends on the key alone; unlike hash(), the same in every process."""
    return int.from_bytes(hashlib.blake2b(repr(key).encode(), digest_size=8).digest(), "big") >> 1


def reduced(image: Image.Image, size: int) -> Image.Image:
    """The image shrunk by a whole factor such that no random crop of it has to be enlarged to `size`.

    The smallest crop that is usual, of 0.08, has sides of at least 0.24 times the image's short side, so 4 · size is
    enough. Doing it twice is the same as doing it once.
    """
    factor = min(image.size) // (4 * size)
    return image.reduce(factor) if factor > 1 else image


class RandomBlur(v2.Transform):
    """Gaussian blur of a PIL image with a standard deviation drawn evenly, as in SimCLR and MoCo v3.

    PIL's blur is what these use, and at 224 pixels over twenty times as fast as torchvision's.
    """

    def __init__(self, least: float, most: float) -> None:
        """Standard deviations in pixels."""
        super().__init__()
        self.least, self.most = least, most

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        return {"sigma": float(torch.empty(()).uniform_(self.least, self.most))}

    def transform(self, inpt: Image.Image, params: dict[str, Any]) -> Image.Image:
        return inpt.filter(ImageFilter.GaussianBlur(params["sigma"]))
