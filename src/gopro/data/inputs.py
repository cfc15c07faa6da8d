"""Images that users pass in: files, folders, PIL images, arrays, tensors, and any mixture of them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from gopro.data.dataset import ImageSource
from gopro.data.folders.find_images import find_images
from gopro.data.images.decoded_image import DecodedImage
from gopro.data.images.image_file import ImageFile, as_shown
from gopro.data.images.levels import Levels
from gopro.errors import InputError

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
"""One image: the path of a file, a PIL image, a numpy array [H, W, C] or [H, W], a torch tensor [C, H, W] or [H, W].
Several: the path of a folder, an array [N, H, W, C], a tensor [N, C, H, W].

C is 1 (grey), 3 (RGB) or 4 (RGB and opacity, laid on white). Values are 0 to 255 as uint8, or 0 to 1 in any floating
point, which is rounded to 8 bits. Do not resize or normalise them beforehand."""

Images = ImageLike | Iterable[ImageLike]
"""One or several `ImageLike`, in any mixture."""

_CHANNELS = (1, 3, 4)
_TOLERANCE = 1e-3  # by which floats may leave 0 to 1, as after the user's own resizing


def as_images(images: Images, levels: Levels | None = None) -> tuple[Iterator[ImageSource], bool]:
    """Iterate over the images, no further than is asked for; also tell whether a single image was passed.

    An image without a path is called by its place: `images`, `images[3]`, `images[3][0]`.

    Args:
        levels: what files and PIL images with more than 8 bits per sample show as black and white.

    Raises:
        InputError: `images` is nothing that holds images. While iterating: an element is no image, an array has an
            unsupported shape, dtype or range, or a folder has no images. Files are not opened here.
    """
    if _is_single(images):
        return _single(images, "images", levels), True
    return _several(images, "images", levels), False


def _is_single(value: Any) -> bool:
    if isinstance(value, str | os.PathLike):
        return not os.path.isdir(value)
    return isinstance(value, Image.Image) or (_is_array(value) and value.ndim in (2, 3))


def _is_array(value: Any) -> bool:
    """Tell whether it is an array of numbers; one of paths or of objects is treated as a list."""
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind not in "OSU")


def _single(value: Any, name: str, levels: Levels | None) -> Iterator[ImageSource]:
    if isinstance(value, str | os.PathLike):
        yield ImageFile(Path(value), os.fspath(value), levels)
    elif isinstance(value, Image.Image):
        yield DecodedImage(name, as_shown(value, name, levels))
    else:
        yield DecodedImage(name, as_shown(_from_array(value, name), name))


def _several(value: Any, name: str, levels: Levels | None) -> Iterator[ImageSource]:
    if isinstance(value, str | os.PathLike):
        yield from (ImageFile(path, levels=levels) for path in find_images(Path(value)))
        return
    if _is_array(value) and value.ndim != 4:
        raise InputError(f"{name}: shape {_shape(value)}; {_supported_shapes(value)}")
    if isinstance(value, bytes | bytearray | dict) or not isinstance(value, Iterable) or not getattr(value, "ndim", 1):
        raise InputError(
            f"{name}: a {type(value).__name__}; give a path, a PIL image, an array, a tensor, or a list of these"
        )
    for i, element in enumerate(value):
        yield from (_single if _is_single(element) else _nested)(element, f"{name}[{i}]", levels)


def _nested(value: Any, name: str, levels: Levels | None) -> Iterator[ImageSource]:
    """Iterate over a folder or a batch in a list; a list in a list is refused, as results come in one flat list."""
    if isinstance(value, list | tuple):
        raise InputError(f"{name}: a {type(value).__name__} inside a list; give the images in one list")
    return _several(value, name, levels)


def _from_array(value: np.ndarray | Tensor, name: str) -> Image.Image:
    array = _channels_last(value, name)
    if array.dtype == np.uint8:
        return Image.fromarray(array)
    if array.dtype.kind != "f":
        raise InputError(f"{name}: dtype {_dtype(value)}; give uint8 (0 to 255) or floating point (0 to 1)")
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not (low >= -_TOLERANCE and high <= 1 + _TOLERANCE):  # in this form, NaN is refused too
        advice = "divide by 255, or give uint8" if 1 < high <= 255 and low >= 0 else "undo its normalisation"
        raise InputError(f"{name}: values from {low:.4g} to {high:.4g}, floating point must be 0 to 1; {advice}")
    return Image.fromarray((array.clip(0, 1) * 255).round().astype(np.uint8))


def _channels_last(value: np.ndarray | Tensor, name: str) -> np.ndarray:
    """Convert to a numpy array [H, W, 3], [H, W, 4] or [H, W]."""
    if isinstance(value, Tensor):
        tensor = value.detach()
        tensor = (tensor.float() if tensor.is_floating_point() else tensor).cpu()
        array = (tensor.permute(1, 2, 0) if tensor.ndim == 3 else tensor).numpy()
    else:
        array = value
    if array.ndim == 3 and array.shape[2] not in _CHANNELS:
        raise InputError(f"{name}: shape {_shape(value)}; {_supported_shapes(value)}")
    if not array.size:
        raise InputError(f"{name}: shape {_shape(value)}, no pixels")
    return np.ascontiguousarray(array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array)


def _supported_shapes(value: np.ndarray | Tensor) -> str:
    """Name the supported shapes, and the permutation that may help."""
    if isinstance(value, Tensor):
        swapped = value.ndim == 3 and value.shape[2] in _CHANNELS
        return "a tensor must be [C, H, W] or [N, C, H, W]" + (": use .permute(2, 0, 1)" if swapped else "")
    swapped = value.ndim == 3 and value.shape[0] in _CHANNELS
    return "an array must be [H, W, C] or [N, H, W, C]" + (": use .transpose(1, 2, 0)" if swapped else "")


def _shape(value: np.ndarray | Tensor) -> str:
    return str(list(value.shape))


def _dtype(value: np.ndarray | Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")
