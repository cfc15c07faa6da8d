"""An image file opened as 8-bit RGB, whatever kind of file it is, or refused by name."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from gopro.data.open_guarded import open_guarded
from gopro.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""File name endings, in lower case, that count as images. The content decides how a file is decoded."""

MAX_PIXELS = 178_956_970
"""The largest image decoded, in pixels: where PIL itself begins to refuse."""

MAX_ASPECT = 200
"""The most elongated image accepted, long side over short: resizing by the short side multiplies the long one."""

# Only what SUFFIXES promises: PIL would also start Ghostscript for PostScript, and read container formats.
_FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "BMP", "GIF", "TIFF", "PPM")

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageFile:
    """An image on disk."""

    path: Path
    given: str | None = None
    """The path as somebody wrote it, for whom it is called so."""

    @property
    def name(self) -> str:
        """The path as it was given, or with forward slashes."""
        return self.path.as_posix() if self.given is None else self.given

    def open(self) -> Image.Image:
        """The image, mode RGB, upright; see `decode`. Raises InputError naming the path."""
        return decode(self.path, self.name)

    def digest(self) -> str:
        """A hash of the file's bytes. Raises InputError naming the path."""
        try:
            with open_guarded(self.path, self.name) as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        except OSError as error:
            raise InputError(f"{self.name}: the image cannot be read ({error.strerror}); restore it") from error


def decode(source: Path | BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The first frame of an image as an upright 8-bit RGB image.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled (not clipped) to 8 bits,
    palettes, grey, 1-bit and CMYK are converted. Colour profiles are ignored, as CLIP's own preprocessing does.

    Args:
        source: a path, or a binary file such as an upload.
        name: what to call the image in an error.
        max_pixels: larger images are refused before anything is decoded.

    Raises:
        InputError: the file is missing, empty, truncated, damaged, not an image, no file at all, too large or too
            elongated, or has samples (floating point, 32-bit) that have no one rendering in 8 bits.
    """
    with (
        _refusals(name, source),
        open_guarded(source, name) if isinstance(source, Path) else nullcontext(source) as file,
        Image.open(file, formats=_FORMATS) as image,
    ):
        return _as_shown(image, name, max_pixels)


def as_shown(image: Image.Image, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """A PIL image as an 8-bit RGB one of its own, by the rules of `decode`, so that a file and what `Image.open` makes
    of it are the same image.

    EXIF orientation is applied to what `Image.open` gave alone: an image that was cropped, turned or made in memory
    stands as its owner wants it.

    Raises:
        InputError: as `decode`, as far as it applies; the file behind the image is closed or damaged.
    """
    with _refusals(name):
        return _as_shown(image, name, max_pixels)


def _as_shown(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(image, name, max_pixels)
    image.load()
    rgb = _to_rgb(image, name)
    # After load(): PIL turns TIFFs itself while loading and then drops the tag. Only an opened image has a format.
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1)) if image.format else None
    return rgb if turn is None else rgb.transpose(turn)


@contextmanager
def _refusals(name: str, source: Path | BinaryIO | None = None) -> Iterator[None]:
    """Whatever PIL raises, as an InputError that names the image."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if isinstance(source, Path) and source.stat().st_size == 0:
            raise InputError(f"{name}: the file is empty; replace or remove it") from error
        raise InputError(f"{name}: not an image that can be read ({', '.join(_FORMATS)}); replace it") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: more than {MAX_PIXELS} pixels; scale it down") from error
    except FileNotFoundError as error:
        raise InputError(f"{name}: there is no such image; check the path or restore the file") from error
    except Exception as error:  # on damaged bytes PIL's decoders raise nearly anything
        reason = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        raise InputError(f"{name}: the image cannot be read ({reason}); replace or remove it") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(f"{name}: {width} x {height} is more than {max_pixels} pixels; scale it down")
    if not width * height:
        raise InputError(f"{name}: {width} x {height}, no pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{name}: {width} x {height} is more elongated than {MAX_ASPECT}:1; crop it")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise InputError(f"{name}: floating-point samples; save it with 8 or 16 bits a sample")
    if image.mode.startswith("I"):
        image = _sixteen_to_eight(image, name)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _sixteen_to_eight(image: Image.Image, name: str) -> Image.Image:
    """Grey of 16 bits (modes I;16 and, from some decoders, I) scaled to mode L; PIL's own convert() clips."""
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 65535:
        raise InputError(f"{name}: 32-bit samples; save it with 8 or 16 bits a sample")
    return Image.fromarray(((samples + 128) // 257).astype(np.uint8))
