"""What people hand in as images: files, folders, PIL images, arrays, tensors, and any mixture of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gopro.data.dataset import ImageSource
from gopro.data.decoded_image import DecodedImage
from gopro.data.find_images import find_images
from gopro.data.image_file import ImageFile, as_shown
from gopro.errors import InputError

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
"""An image: the path of a file, a PIL image, a numpy array [H, W, C] or [H, W], a torch tensor [C, H, W] or [H, W].
Several: the path of a folder, an array [N, H, W, C], a tensor [N, C, H, W].

C is 1 (grey), 3 (RGB) or 4 (RGB and opacity, laid on white). Values are 0 to 255 as uint8, or 0 to 1 as any floating
point; the latter are rounded to 8 bits. They are not resized or normalised beforehand."""

Images = ImageLike | Iterable[ImageLike]
"""One or several of `ImageLike`, in any mixture."""

_CHANNELS = (1, 3, 4)
_SLACK = 1e-3  # by which floats may miss 0 to 1: resizing and rounding of people's own


def as_images(images: Images) -> tuple[Iterator[ImageSource], bool]:
    """The images one after the other, read no further than is asked for, and whether it is the one and only.

    An image without a path is called by where it stands: `images`, `images[3]`, `images[3][0]`.

    Raises:
        InputError: what is handed in is nothing that holds images. While iterating: an element is none, an array has
            another shape, dtype or range, or a folder has no images. A file is not opened here.
    """
    if _is_one(images):
        return _single(images, "images"), True
    return _several(images, "images"), False


def _is_one(given: Any) -> bool:
    if isinstance(given, str | os.PathLike):
        return not os.path.isdir(given)
    return isinstance(given, Image.Image) or (_is_array(given) and given.ndim in (2, 3))


def _is_array(given: Any) -> bool:
    """Of numbers; an array of paths or of objects is a list by another name."""
    return isinstance(given, Tensor) or (isinstance(given, np.ndarray) and given.dtype.kind not in "OSU")


def _single(given: Any, name: str) -> Iterator[ImageSource]:
    if isinstance(given, str | os.PathLike):
        yield ImageFile(Path(given), os.fspath(given))
    elif isinstance(given, Image.Image):
        yield DecodedImage(name, as_shown(given, name))
    else:
        yield DecodedImage(name, as_shown(_from_array(given, name), name))


def _several(given: Any, name: str) -> Iterator[ImageSource]:
    if isinstance(given, str | os.PathLike):
        yield from map(ImageFile, find_images(Path(given)))
        return
    if _is_array(given) and given.ndim != 4:
        raise InputError(f"{name}: shape {_shape(given)}; {_wanted(given)}")
    if isinstance(given, bytes | bytearray | dict) or not isinstance(given, Iterable) or not getattr(given, "ndim", 1):
        raise InputError(
            f"{name}: a {type(given).__name__}; give a path, a PIL image, an array, a tensor, or a list of these"
        )
    for i, element in enumerate(given):
        yield from (_single if _is_one(element) else _within)(element, f"{name}[{i}]")


def _within(given: Any, name: str) -> Iterator[ImageSource]:
    """A folder or a batch in a list; a list in a list would leave open what belongs to what."""
    if isinstance(given, list | tuple):
        raise InputError(f"{name}: a {type(given).__name__} inside a list; give the images in one list")
    return _several(given, name)


def _from_array(given: np.ndarray | Tensor, name: str) -> Image.Image:
    array = _channels_last(given, name)
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if array.dtype.kind != "f":
        raise InputError(f"{name}: dtype {_dtype(given)}; give uint8 (0 to 255) or floating point (0 to 1)")
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not (low >= -_SLACK and high <= 1 + _SLACK):  # so that NaN is refused too
        advice = "divide by 255, or give uint8" if 1 < high <= 255 and low >= 0 else "undo its normalisation"
        raise InputError(f"{name}: values from {low:.4g} to {high:.4g}, floating point must be 0 to 1; {advice}")
    return Image.fromarray((array.clip(0, 1) * 255).round().astype(np.uint8))


def _channels_last(given: np.ndarray | Tensor, name: str) -> np.ndarray:
    """[H, W, 3], [H, W, 4] or [H, W] as numpy holds it."""
    if isinstance(given, Tensor):
        tensor = given.detach()
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).cpu()
        array = (tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor).numpy()
    else:
        array = given
    if array.ndim == 3 and array.shape[2] not in _CHANNELS:
        raise InputError(f"{name}: shape {_shape(given)}; {_wanted(given)}")
    if not array.size:
        raise InputError(f"{name}: shape {_shape(given)}, no pixels")
    return np.ascontiguousarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _wanted(given: np.ndarray | Tensor) -> str:
    """What shapes are taken, and what may be meant."""
    if isinstance(given, Tensor):
        swapped = given.ndim == 3 and given.shape[2] in _CHANNELS
        return "a tensor must be [C, H, W] or [N, C, H, W]" + (": use .permute(2, 0, 1)" if swapped else "")
    swapped = given.ndim == 3 and given.shape[0] in _CHANNELS
    return "an array must be [H, W, C] or [N, H, W, C]" + (": use .transpose(1, 2, 0)" if swapped else "")


def _shape(given: np.ndarray | Tensor) -> str:
    return str(list(given.shape))


def _dtype(given: np.ndarray | Tensor) -> str:
    return str(given.dtype).removeprefix("torch.")
