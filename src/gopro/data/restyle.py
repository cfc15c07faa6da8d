"""Images in other styles, made by plain operations. Settings can be chosen by them and no style be used up for it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageFilter, ImageOps

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
                return _shift_hue(image)
            case "inverted":
                return ImageOps.invert(image)
            case "edges":
                return ImageOps.grayscale(image).filter(ImageFilter.CONTOUR).convert("RGB")

    def digest(self) -> str:
        """Hash the image's content and the style."""
        return hashlib.blake2b(f"{self.image.digest()}/{self.style}".encode(), digest_size=16).hexdigest()


def _shift_hue(image: Image.Image) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    hue = hue.point([(i + 256 // 3) % 256 for i in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
