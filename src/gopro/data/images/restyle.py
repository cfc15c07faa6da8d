"""Images in other styles, made by plain operations, so that settings can be chosen without a style that is tested."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageFilter, ImageOps
from torchvision.transforms.functional import adjust_hue

from gopro.data.dataset import ImageSource

Style = Literal["original", "grayscale", "hue", "inverted", "edges"]


@dataclass(frozen=True, slots=True)
class Restyled:
    """An image in another style: an `ImageSource`.

    `grayscale` has no colours, `hue` has them shifted by a third of the circle, `inverted` is the negative, and `edges`
    has dark contours on white.
    """

    image: ImageSource
    style: Style

    @property
    def name(self) -> str:
        """The image's name and the style."""
        return f"{self.image.name} ({self.style})"

    def open(self) -> Image.Image:
        """Open the image and change its style; the errors are those of the image."""
        image = self.image.open()
        match self.style:
            case "original":
                return image
            case "grayscale":
                return ImageOps.grayscale(image).convert("RGB")
            case "hue":
                return adjust_hue(image, 1 / 3)  # pyright: ignore  # its annotations know only tensors
            case "inverted":
                return ImageOps.invert(image)
            case "edges":
                return ImageOps.grayscale(image).filter(ImageFilter.CONTOUR).convert("RGB")

    def digest(self) -> str:
        """Hash the image's content and the style."""
        return hashlib.blake2b(f"{self.image.digest()}/{self.style}".encode(), digest_size=16).hexdigest()
