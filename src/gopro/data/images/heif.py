"""HEIC, the format of iPhones' photographs, which Pillow reads with the plugin pillow-heif."""

from __future__ import annotations

from importlib.util import find_spec
from typing import BinaryIO

from gopro.errors import InputError

HEIF_SUFFIXES = (".heic", ".heif")
INSTALL_HEIF = "pip install '.[heif]', or convert to JPEG"
"""What to do about HEIC images that cannot be read."""

_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"})


class HeifNotInstalled(InputError):
    """An image is HEIC, and pillow-heif is not installed."""


def reads_heif() -> bool:
    """Tell whether pillow-heif is installed."""
    return find_spec("pillow_heif") is not None


def heif_formats(file: BinaryIO, name: str) -> tuple[str, ...]:
    """Return the format to open a file with if its content is HEIC, and nothing for any other file.

    The name does not count: a phone's `.JPG` may be HEIC. The plugin is imported only when it is needed, as that takes
    its time.

    Raises:
        HeifNotInstalled: the file is HEIC, and pillow-heif is not installed.
    """
    head = file.read(64)
    file.seek(0)
    if head[4:8] != b"ftyp" or head[8:12] not in _BRANDS or b"avif" in head[8:]:
        return ()
    if not reads_heif():
        raise HeifNotInstalled(f"{name}: HEIC, which needs pillow-heif: {INSTALL_HEIF}")
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return ("HEIF",)
