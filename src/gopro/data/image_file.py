"""An image file opened as an upright 8-bit RGB image, whatever its format, or refused by name."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from threading import Timer
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from gopro.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
"""File name endings, in lower case, that mark an image. The content alone decides how a file is decoded."""

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

    @property
    def name(self) -> str:
        """The path as the user wrote it, or with forward slashes."""
        return self.path.as_posix() if self.display_name is None else self.display_name

    def open(self) -> Image.Image:
        """Decode the image; see `decode`. Raises InputError naming the path."""
        return decode(self.path, self.name)

    def digest(self) -> str:
        """Hash the file's bytes. Raises InputError naming the path."""
        try:
            with _open_file(self.path, self.name) as file:
                return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        except OSError as error:
            raise InputError(f"{self.name}: the image cannot be read ({error.strerror}); restore it") from error


def decode(source: Path | BinaryIO, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode the first frame of an image as an upright 8-bit RGB image.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled (not clipped) to 8 bits, and
    palettes, grey, 1-bit and CMYK are converted. Colour profiles are ignored, as in CLIP's own preprocessing.

    Args:
        source: a path, or a binary file such as an upload.
        name: how errors call the image.
        max_pixels: larger images are refused before anything is decoded.

    Raises:
        InputError: the file is missing, empty, truncated, damaged, not an image, not a regular file, too large or too
            elongated, or has floating-point or 32-bit samples, which have no unique rendering in 8 bits.
    """
    with (
        _input_errors(name, source),
        _open_file(source, name) if isinstance(source, Path) else nullcontext(source) as file,
        Image.open(file, formats=_FORMATS) as image,
    ):
        return _to_upright_rgb(image, name, max_pixels)


def as_shown(image: Image.Image, name: str) -> Image.Image:
    """Convert a PIL image to a new upright 8-bit RGB one, by the rules of `decode`.

    A file and the result of `Image.open` on it are thus the same image. EXIF orientation is applied only to images
    fresh from `Image.open`; one that was cropped, turned or made in memory is taken as it is.

    Raises:
        InputError: as `decode`, where it applies; or the file behind the image is closed or damaged.
    """
    with _input_errors(name):
        return _to_upright_rgb(image, name, MAX_PIXELS)


def _to_upright_rgb(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    _check_size(image, name, max_pixels)
    image.load()
    rgb = _to_rgb(image, name)
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
        raise InputError(f"{name}: not an image that can be read ({', '.join(_FORMATS)}); replace it") from error
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


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "F":
        raise InputError(f"{name}: floating-point samples; save it with 8 or 16 bits per sample")
    if image.mode.startswith("I"):
        image = _sixteen_to_eight(image, name)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _sixteen_to_eight(image: Image.Image, name: str) -> Image.Image:
    """Scale 16-bit grey (modes I;16 and, from some decoders, I) to mode L; PIL's own convert() clips."""
    samples = np.asarray(image).astype(np.int64)
    if samples.min() < 0 or samples.max() > 65535:
        raise InputError(f"{name}: 32-bit samples; save it with 8 or 16 bits per sample")
    return Image.fromarray(((samples + 128) // 257).astype(np.uint8))
