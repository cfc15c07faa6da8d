"""List what the feature store holds on disk, and delete what has not been used for a long time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from gopro.clip.features.store import BACKBONE_FILE
from gopro.errors import InputError

DAY = 86400.0
LEFTOVER_AGE = 3600.0
"""Seconds after which a temporary file is taken for the leftover of a killed process."""


@dataclass(frozen=True)
class SegmentFile:
    """A file of the store; `used` is when it was last written or read, in seconds since 1970."""

    path: Path
    size: int
    used: float

    @property
    def entries(self) -> int:
        """The number of entries; 0 if the file is damaged."""
        try:
            with safe_open(self.path, framework="np") as file:
                return file.get_slice("keys").get_shape()[0]
        except (SafetensorError, OSError):
            return 0


@dataclass(frozen=True)
class CachedBackbone:
    """The segments of one backbone."""

    folder: Path
    name: str
    files: tuple[SegmentFile, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(file.size for file in self.files)


def cached_backbones(folder: Path) -> list[CachedBackbone]:
    """List the backbones that the store's folder holds features of; none if there is no such folder."""
    backbones = []
    for about in sorted(folder.glob(f"*/{BACKBONE_FILE}")):
        try:
            name = str(json.loads(about.read_text())["name"])
        except (OSError, ValueError, KeyError, TypeError):
            name = f"damaged: {about}"
        backbones.append(CachedBackbone(about.parent, name, tuple(_files(about.parent, "*.safetensors"))))
    return backbones


def prune(
    folder: Path,
    *,
    backbone: str | None = None,
    older_than: float | None = None,
    keep_gb: float | None = None,
    everything: bool = False,
) -> tuple[int, int]:
    """Delete segments, least recently used first. Processes that are reading them are not disturbed.

    Args:
        backbone: only segments of backbones with this name or fingerprint.
        older_than: delete segments that have not been used for this many days.
        keep_gb: delete as many as needed for the rest to fit into this many GB.
        everything: delete all.

    Returns:
        The number of deleted files, and their bytes.

    Raises:
        InputError: nothing says what to delete; a number is negative; there is no such backbone; a file cannot be
            deleted.
    """
    if older_than is None and keep_gb is None and not everything:
        raise InputError("say what to delete: --older-than DAYS, --keep-gb N or --all")
    for name, value in (("older-than", older_than), ("keep-gb", keep_gb)):
        if value is not None and value < 0:
            raise InputError(f"{name} is {value}: give a number from 0 up")
    chosen = [cached for cached in cached_backbones(folder) if backbone in (None, cached.name, cached.folder.name)]
    if backbone is not None and not chosen:
        raise InputError(f"{folder} holds nothing of backbone {backbone!r}: list its backbones with gopro cache")
    files = sorted((file for cached in chosen for file in cached.files), key=lambda file: file.used)
    excess = None if keep_gb is None else sum(file.size for file in files) - keep_gb * 1e9
    now, deleted, size = time.time(), 0, 0
    for file in files:
        old = older_than is not None and now - file.used > older_than * DAY
        if everything or old or (excess is not None and size < excess):
            _delete(file.path)
            deleted, size = deleted + 1, size + file.size
    for cached in chosen:
        for temporary in _files(cached.folder, ".*"):
            if now - temporary.used > LEFTOVER_AGE:
                _delete(temporary.path)
        if not any(cached.folder.glob("*.safetensors")):
            _delete(cached.folder / BACKBONE_FILE)
            if not any(cached.folder.iterdir()):
                cached.folder.rmdir()
    return deleted, size


def _files(folder: Path, pattern: str) -> Iterator[SegmentFile]:
    for path in folder.glob(pattern):
        try:
            stat = path.stat()
        except FileNotFoundError:  # another process is pruning
            continue
        yield SegmentFile(path, stat.st_size, stat.st_mtime)


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path} cannot be deleted: {error.strerror}") from error
