"""What the feature store holds on disk, and making room there."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from gopro.clip.feature_store import ABOUT
from gopro.errors import InputError

DAY = 86400.0
ABANDONED = 3600.0
"""Seconds after which a file that was never renamed into place is what a killed process left."""


@dataclass(frozen=True)
class SegmentFile:
    """A file of the store; `used` is when it was last written to or read from, in seconds since 1970."""

    path: Path
    size: int
    used: float

    @property
    def entries(self) -> int:
        """How many it holds; 0 for one that is damaged."""
        try:
            with safe_open(self.path, framework="np") as file:
                return file.get_slice("keys").get_shape()[0]
        except (SafetensorError, OSError):
            return 0


@dataclass(frozen=True)
class Kept:
    """What is kept of one backbone."""

    folder: Path
    backbone: str
    files: tuple[SegmentFile, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)


def kept(folder: Path) -> list[Kept]:
    """What is in the store's folder, by backbone; nothing where there is no such folder."""
    found = []
    for about in sorted(folder.glob(f"*/{ABOUT}")):
        try:
            name = str(json.loads(about.read_text())["name"])
        except (OSError, ValueError, KeyError, TypeError):
            name = f"damaged: {about}"
        found.append(Kept(about.parent, name, tuple(_files(about.parent, "*.safetensors"))))
    return found


def prune(
    folder: Path,
    *,
    backbone: str | None = None,
    older_than: float | None = None,
    keep_gb: float | None = None,
    everything: bool = False,
) -> tuple[int, int]:
    """Deletes segments, those that were not used for the longest time first. Processes that read them go on.

    Args:
        backbone: only of backbones of this name or fingerprint.
        older_than: those that were not used for so many days.
        keep_gb: as many as it takes for the others to fit into so many GB.
        everything: all of them.

    Returns: files and bytes that were deleted.

    Raises:
        InputError: nothing says what to delete; a number below 0; no such backbone; a file that cannot be deleted.
    """
    if older_than is None and keep_gb is None and not everything:
        raise InputError("say what to delete: --older-than DAYS, --keep-gb N or --all")
    for name, value in (("older-than", older_than), ("keep-gb", keep_gb)):
        if value is not None and value < 0:
            raise InputError(f"{name} is {value}: give a number from 0 up")
    chosen = [k for k in kept(folder) if backbone in (None, k.backbone, k.folder.name)]
    if backbone is not None and not chosen:
        raise InputError(f"{folder} holds nothing of backbone {backbone!r}: see gopro cache")
    files = sorted((file for k in chosen for file in k.files), key=lambda file: file.used)
    room = None if keep_gb is None else sum(file.size for file in files) - keep_gb * 1e9
    now, gone, size = time.time(), 0, 0
    for file in files:
        old = older_than is not None and now - file.used > older_than * DAY
        if everything or old or (room is not None and size < room):
            _delete(file.path)
            gone, size = gone + 1, size + file.size
    for k in chosen:
        for left in _files(k.folder, ".*"):
            if now - left.used > ABANDONED:
                _delete(left.path)
        if not any(k.folder.glob("*.safetensors")):
            _delete(k.folder / ABOUT)
            if not any(k.folder.iterdir()):
                k.folder.rmdir()
    return gone, size


def _files(folder: Path, pattern: str) -> Iterator[SegmentFile]:
    for path in folder.glob(pattern):
        try:
            stat = path.stat()
        except FileNotFoundError:  # another process prunes
            continue
        yield SegmentFile(path, stat.st_size, stat.st_mtime)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be deleted: {error.strerror}") from error
