"""An image file opened as an upright 8-bit RGB image, whatever its format, or refused by name."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from threading import Timer
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from gopro.data.images.heif import heif_formats
from gopro.data.images.levels import SIXTEEN_BITS, Levels, to_eight_bits
from gopro.errors import InputError

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".heic", ".heif"),
    *(".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"),
)
"""File name endings, in lower case, that mark an image. The content alone decides how a file is decoded."""

DEEP_SUFFIXES = (".png", ".tif", ".tiff", ".pgm")
"""Endings of the formats that may have more than 8 bits per sample."""

MAX_PIXELS = 178_956_970
"""Largest image decoded, in pixels: PIL's own limit."""

MAX_ASPECT = 200
"""Most elongated image accepted, long side over short: resizing the short side up stretches the long one with it."""

SLOW_READ_SECONDS = 30.0
"""Time after which a warning names a file that is still being read."""

# Only the formats that SUFFIXES promises: PIL would also start Ghostscript for PostScript, and read container formats.
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
    display_name: str | None = None
    """The path as the user wrote it, to be repeated in results and errors."""
    levels: Levels | None = None
    """What grey images with more than 8 bits per sample show as black and white; see `decode`."""

    @property
    def name(self) -> str:
        """The path as the user wrote it, or with forward slashes."""
        return self.path.as_posix() if self.display_name is None else self.display_name

    def at_levels(self, levels: Levels) -> ImageFile:
        """Return the same image, opened at these levels."""
        return replace(self, levels=levels)

    def open(self) -> Image.Image:
        """Decode the image; see `decode`. Raises InputError naming the path."""
        return decode(self.path, self.name, levels=self.levels)

    def digest(self) -> str:
        """Hash the file's bytes, and the levels if there are any. Raises InputError naming the path."""
        try:
            with _open_file(self.path, self.name) as file:
                content = hashlib.file_digest(file, content_hash).hexdigest()
        except OSError as error:
            raise InputError(f"{self.name}: the image cannot be read ({error.strerror}); restore it") from error
        return digest_at_levels(content, self.levels)


def content_hash(content: bytes = b"") -> Any:
    """Return the hash, of 32 hexadecimal digits, that tells images apart by their content."""
    return hashlib.blake2b(content, digest_size=16)


def digest_at_levels(digest: str, levels: Levels | None) -> str:
    """Return the digest of an image whose file has the given one: at other levels it is another image."""
    return digest if levels is None else content_hash(f"{digest} {levels[0]!r} {levels[1]!r}".encode()).hexdigest()


def decode(
    source: Path | BinaryIO, name: str, max_pixels: int = MAX_PIXELS, levels: Levels | None = None
) -> Image.Image:
    """Decode the first frame of an image as an upright 8-bit RGB image.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled (not clipped) to 8 bits, and
    palettes, grey, 1-bit and CMYK are converted. Colour profiles are ignored, as in CLIP's own preprocessing. HEIC is
    read with pillow-heif, the extra `heif`.

    Args:
        source: a path, or a binary file such as an upload.
        name: how errors call the image.
        max_pixels: larger images are refused before anything is decoded.
        levels: what grey with 16 or 32 bits or floating point shows as black and white. By default 0 and 65535, and
            samples that are not 16-bit are refused, as they have no unique rendering in 8 bits. Pillow itself reads
            16-bit colour as 8 bits, to which levels do not apply.

    Raises:
        InputError: the file is missing, empty, truncated, damaged, not an image, not a regular file, too large or too
            elongated; it needs levels; or it is HEIC, and pillow-heif is not installed.
    """
    with _input_errors(name, source), _opened(source, name) as image:
        return _to_upright_rgb(image, name, max_pixels, levels)


def grey_range(path: Path) -> tuple[float, float] | None:
    """Return the smallest and the largest sample of a grey image with more than 8 bits, None for any other image.

    Raises:
        InputError: the image cannot be read.
    """
    with _input_errors(path.as_posix(), path), _opened(path, path.as_posix()) as image:
        if not _is_deep_grey(image):
            return None
        _check_size(image, path.as_posix(), MAX_PIXELS)
        samples = np.asarray(image)
        return float(samples.min()), float(samples.max())


def as_shown(image: Image.Image, name: str, levels: Levels | None = None) -> Image.Image:
    """Convert a PIL image to a new upright 8-bit RGB one, by the rules of `decode`.

    A file and the result of `Image.open` on it are thus the same image. EXIF orientation is applied only to images
    fresh from `Image.open`; one that was cropped, turned or made in memory is taken as it is.

    Raises:
        InputError: as `decode`, where it applies; or the file behind the image is closed or damaged.
    """
    with _input_errors(name):
        return _to_upright_rgb(image, name, MAX_PIXELS, levels)


@contextmanager
def _opened(source: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Open an image in one of the formats that SUFFIXES promises, without decoding it."""
    with _open_file(source, name) if isinstance(source, Path) else nullcontext(source) as file:
        formats = (*_FORMATS, *heif_formats(file, name))
        with Image.open(file, formats=formats) as image:
            yield image


def _to_upright_rgb(image: Image.Image, name: str, max_pixels: int, levels: Levels | None) -> Image.Image:
    _check_size(image, name, max_pixels)
    image.load()
    rgb = _to_rgb(image, name, levels)
    # After load(): PIL turns TIFFs itself while loading and then drops the tag. Only an opened image has a format.
    turn = _UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1)) if image.format else None
    return rgb if turn is None else rgb.transpose(turn)


@contextmanager
def _open_file(path: Path, name: str) -> Iterator[BufferedReader]:
    """Open a regular file, and warn while it takes long.

    A read that a network file system does not answer cannot be interrupted, so a warning names the file after
    `SLOW_READ_SECONDS`.

    Raises:
        InputError: a folder, a pipe or a device.
        OSError: the file cannot be opened.
    """
    timer = Timer(SLOW_READ_SECONDS, _warn_of_slow_read, [name])
    timer.daemon = True
    timer.start()
    try:
        # O_NONBLOCK: opening a pipe that nobody writes to would wait for ever; regular files ignore it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise InputError(f"{name}: not a file but a folder, a pipe or a device; remove it")
            yield file
    finally:
        timer.cancel()


def _warn_of_slow_read(name: str) -> None:
    warnings.warn(
        f"{name}: still not read after {SLOW_READ_SECONDS:.0f} s: its disk or network file system does not answer; "
        "waiting for it (Ctrl-C stops)",
        stacklevel=1,
    )


@contextmanager
def _input_errors(name: str, source: Path | BinaryIO | None = None) -> Iterator[None]:
    """Turn whatever PIL raises into an InputError that names the image."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        if isinstance(source, Path) and source.stat().st_size == 0:
            raise InputError(f"{name}: the file is empty; replace or remove it") from error
        raise InputError(f"{name}: not an image that can be read ({', '.join(_FORMATS)}, HEIC); replace it") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{name}: more than {MAX_PIXELS} pixels; scale it down") from error
    except FileNotFoundError as error:
        raise InputError(f"{name}: there is no such image; check the path or restore the file") from error
    except Exception as error:  # PIL's decoders raise nearly anything on damaged bytes
        reason = " ".join((getattr(error, "strerror", None) or str(error) or type(error).__name__).split())
        raise InputError(f"{name}: the image cannot be read ({reason}); replace or remove it") from error


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise InputError(f"{name}: {width} x {height} is more than {max_pixels} pixels; scale it down")
    if not width * height:
        raise InputError(f"{name}: {width} x {height} has no pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise InputError(f"{name}: {width} x {height} is more elongated than {MAX_ASPECT}:1; crop it")


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode == "F" or image.mode.startswith("I")


def _to_rgb(image: Image.Image, name: str, levels: Levels | None) -> Image.Image:
    if _is_deep_grey(image):
        image = _deep_grey_to_l(image, name, levels)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _deep_grey_to_l(image: Image.Image, name: str, levels: Levels | None) -> Image.Image:
    """Scale grey of 16 bits (modes I;16 and, from some decoders, I) or more to mode L; PIL's own convert() clips."""
    samples = np.asarray(image)
    if levels is None:
        if image.mode == "F" or samples.min() < 0 or samples.max() > SIXTEEN_BITS[1]:
            kind = "floating-point" if image.mode == "F" else "32-bit"
            raise InputError(
                f"{name}: {kind} samples; save it with 8 or 16 bits per sample, or train with --levels BLACK WHITE, "
                "the values to show as black and white"
            )
        levels = SIXTEEN_BITS
    elif np.isnan(samples).any():
        raise InputError(f"{name}: has samples that are not a number; fill them before")
    return Image.fromarray(to_eight_bits(samples, levels))
