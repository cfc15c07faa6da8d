"""The feature store: image features of frozen backbones on disk, keyed by content and shared by all runs."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import numpy as np
import torch
from jaxtyping import Float16, Int, Int8, Int64
from safetensors import SafetensorError, safe_open
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.files import save_tensors, write_json

CACHE_VARIABLE, OFF = "GOPRO_CACHE", "off"
BACKBONE_FILE = "backbone.json"
KEY_BYTES = 16
FORMAT = "2"
"""The format of segments; files of another one are not read. Format 2 has a checksum per row."""


def cache_folder() -> Path | None:
    """Return the folder of the feature store, None if it is switched off.

    It is the value of the environment variable GOPRO_CACHE (`off` switches the store off) if that is set, else `gopro`
    in the user's cache folder.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named == OFF:
        return None
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gopro"


@dataclass(frozen=True)
class Segment:
    """Entries that were written together: a file mapped into memory, or the entries themselves if it cannot be written.

    Attributes:
        keys: [n], 16 bytes each.
        rows: [n, width]; those of a file are read when they are used.
        checksums: [n], CRC-32 of each row as it was written.
        verified: [n], checksum status per row: 0 unchecked, 1 ok, -1 corrupt.
    """

    path: Path | None
    keys: np.ndarray
    rows: Float16[Tensor, "n width"]
    checksums: Int64[np.ndarray, " n"]
    verified: Int8[np.ndarray, " n"]

    def verify(self, rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Return the rows whose checksums are right, and warn once about the others."""
        unchecked = rows[self.verified[rows] == 0]
        right = row_checksums(self.rows[torch.from_numpy(unchecked)]) == self.checksums[unchecked]
        self.verified[unchecked] = np.where(right, 1, -1)
        if corrupt := int((~right).sum()):
            warnings.warn(
                f"{self.path}: {corrupt} of its entries are corrupt and are computed again; the disk may be failing",
                stacklevel=2,
            )
        return rows[self.verified[rows] > 0]


def row_checksums(rows: Float16[Tensor, "n width"]) -> Int64[np.ndarray, " n"]:
    """Return the CRC-32 of each row's bytes."""
    return np.array([zlib.crc32(row) for row in rows.numpy()], dtype=np.int64)


@dataclass(frozen=True)
class RowLocations:
    """The segment (-1 for an entry that is missing) and the row in it of each of n entries."""

    segments: Int[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]

    def __getitem__(self, index: slice | Int[np.ndarray, " m"]) -> RowLocations:
        return RowLocations(self.segments[index], self.rows[index])


class FeatureStore:
    """Half-precision rows computed by a backbone, under keys of 16 bytes.

    On disk they are below `folder`, in one folder per backbone (described by `backbone.json`), in segments: safetensors
    files that are written under a temporary name, renamed into place and never changed. Any number of processes may
    therefore read and write at once; if two write the same entry, it takes its room twice.

    Everything in the store can be computed again. Files that are foreign or damaged are ignored, and entries that
    cannot be written stay in the memory of this process, each with a warning.

    Args:
        folder: None to keep everything in memory, for as long as this object lives.
    """

    def __init__(self, backbone: Backbone, folder: Path | None):
        self.backbone = backbone
        self.folder = None if folder is None else folder / backbone.fingerprint()
        self.segments: list[Segment] = []
        self._opened: set[str] = set()

    @staticmethod
    def default(backbone: Backbone) -> FeatureStore:
        """Return the store that all runs of this user share; see `cache_folder`."""
        return FeatureStore(backbone, cache_folder())

    def locate(self, keys: Sequence[bytes]) -> RowLocations:
        """Locate the entries with these keys, including those that other processes have written in the meantime."""
        self._open_new_segments()
        # numpy compares byte strings as if padded with zeros, which is exact here as all have the same length
        unique, inverse = np.unique(np.array(keys, dtype=f"S{KEY_BYTES}"), return_inverse=True)
        located = RowLocations(np.full(len(unique), -1), np.full(len(unique), -1))
        for number, segment in enumerate(self.segments if len(unique) else ()):
            at = np.minimum(np.searchsorted(unique, segment.keys), len(unique) - 1)
            rows = segment.verify(np.flatnonzero(unique[at] == segment.keys))
            located.segments[at[rows]], located.rows[at[rows]] = number, rows
        for number in np.unique(located.segments[located.segments >= 0]):
            _touch(self.segments[number].path)
        return located[inverse]

    def read(self, locations: RowLocations) -> Float16[Tensor, "n width"]:
        """Read the rows at these locations, none of which may be missing."""
        rows = torch.empty(len(locations.rows), self.backbone.row_width, dtype=torch.float16)
        for number in np.unique(locations.segments):
            here = torch.from_numpy(np.flatnonzero(locations.segments == number))
            rows[here] = self.segments[number].rows[torch.from_numpy(locations.rows)[here]]
        return rows

    def write(self, keys: Sequence[bytes], rows: Float16[Tensor, "n width"]) -> None:
        """Store rows under their keys: on disk for all processes, or in memory if the folder cannot be written."""
        key_bytes = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)
        checksums, path = row_checksums(rows), None
        if self.folder is not None:
            path = self.folder / f"{uuid4().hex}.safetensors"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not (self.folder / BACKBONE_FILE).is_file():
                    about = {"name": self.backbone.name, "width": self.backbone.row_width}
                    write_json(self.folder / BACKBONE_FILE, about)
                tensors = {"keys": torch.tensor(key_bytes), "rows": rows, "sums": torch.tensor(checksums)}
                save_tensors(path, tensors, {"format": FORMAT})
            except (InputError, OSError) as error:
                warnings.warn(
                    f"features are not cached ({error}); set {CACHE_VARIABLE} to another folder", stacklevel=2
                )
                self.folder = path = None
        segment = None if path is None else self._open(path)
        if segment is None:
            verified = np.ones(len(rows), np.int8)
            segment = Segment(None, key_bytes.view(f"S{KEY_BYTES}")[:, 0], rows.clone(), checksums, verified)
        self.segments.append(segment)

    def _open_new_segments(self) -> None:
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._opened and (segment := self._open(path)) is not None:
                self.segments.append(segment)

    def _open(self, path: Path) -> Segment | None:
        self._opened.add(path.name)
        try:
            with safe_open(path, framework="pt") as file:
                if (written := (file.metadata() or {}).get("format")) != FORMAT:
                    raise ValueError(f"another version of gopro wrote it, in format {written} instead of {FORMAT}")
                keys, rows, checksums = map(file.get_tensor, ("keys", "rows", "sums"))  # mapped, not read
            shapes = [(len(rows), KEY_BYTES), (len(rows), self.backbone.row_width), (len(rows),)]
            if [tuple(tensor.shape) for tensor in (keys, rows, checksums)] != shapes:
                raise ValueError("its tensors have other shapes")
            if (keys.dtype, rows.dtype, checksums.dtype) != (torch.uint8, torch.float16, torch.int64):
                raise ValueError("its tensors have other types")
        except FileNotFoundError:  # pruned after it was listed
            return None
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            warnings.warn(f"{path} does not hold features ({error}) and is ignored; remove it", stacklevel=2)
            return None
        unchecked = np.zeros(len(rows), np.int8)
        return Segment(path, keys.numpy().view(f"S{KEY_BYTES}")[:, 0], rows, checksums.numpy(), unchecked)


def _touch(path: Path | None) -> None:
    """Record that a segment was used, in its modification time, by which segments are pruned."""
    if path is not None:
        with suppress(OSError):  # it was pruned or the disk is read-only: nothing depends on it
            os.utime(path)
