"""The feature store: what frozen backbones say of images, on disk, known by content, shared by all runs."""

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

ENVIRONMENT, OFF = "GOPRO_CACHE", "off"
ABOUT = "backbone.json"
KEY_BYTES = 16
FORMAT = "2"
"""Of the segments: another one is not read. 2 has a checksum of each row."""


def cache_folder() -> Path | None:
    """Where features are kept: what GOPRO_CACHE names, else `gopro` in the user's cache folder; None if it says off."""
    named = os.environ.get(ENVIRONMENT)
    if named == OFF:
        return None
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gopro"


@dataclass(frozen=True)
class Segment:
    """Some entries: a file that was written once and is mapped into memory, or what could not be written.

    Attributes:
        keys: [n], 16 bytes each.
        rows: [n, width]; of a file's, a row is read when it is asked for.
        sums: [n], the rows' checksums as they were written.
        sound: [n], whether a row is as it was written, as far as that was looked at: 0 for not yet, 1, or -1.
    """

    path: Path | None
    keys: np.ndarray
    rows: Float16[Tensor, "n width"]
    sums: Int64[np.ndarray, " n"]
    sound: Int8[np.ndarray, " n"]

    def checked(self, rows: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
        """Those of the rows that are as they were written; the others are warned of, once."""
        new = rows[self.sound[rows] == 0]
        self.sound[new] = np.where(checksums(self.rows[torch.from_numpy(new)]) == self.sums[new], 1, -1)
        if damaged := int((self.sound[new] < 0).sum()):
            warnings.warn(
                f"{self.path}: {damaged} of its entries are not what was written there, and are made anew; "
                "the disk may be failing",
                stacklevel=2,
            )
        return rows[self.sound[rows] > 0]


def checksums(rows: Float16[Tensor, "n width"]) -> Int64[np.ndarray, " n"]:
    """The CRC-32 of each row's bytes."""
    return np.array([zlib.crc32(row) for row in rows.numpy()], dtype=np.int64)


@dataclass(frozen=True)
class Places:
    """Where entries stand: number of the segment, -1 for an entry that there is not, and row in it."""

    segments: Int[np.ndarray, " n"]
    rows: Int[np.ndarray, " n"]

    def __getitem__(self, index: slice | Int[np.ndarray, " m"]) -> Places:
        return Places(self.segments[index], self.rows[index])


class FeatureStore:
    """Rows of half-precision numbers that a backbone gave, under keys of 16 bytes.

    On disk they lie below `folder` in a folder for each backbone, which `backbone.json` describes, in segments:
    safetensors files that are written beside, renamed into place and never changed. So any number of processes may
    read and write at once; that two write the same entry costs a little room and does no harm. Everything in it can be
    made anew: a file that is none of ours or is damaged is left out, one that cannot be written stays in this process's
    memory, and each is warned of.
    """

    def __init__(self, backbone: Backbone, folder: Path | None):
        """folder: None to keep everything in memory, as long as this object lives."""
        self.backbone = backbone
        self.folder = None if folder is None else folder / backbone.fingerprint()
        self.segments: list[Segment] = []
        self._known: set[str] = set()

    @staticmethod
    def default(backbone: Backbone) -> FeatureStore:
        """The store that all runs of this user share; see `cache_folder`."""
        return FeatureStore(backbone, cache_folder())

    def find(self, keys: Sequence[bytes]) -> Places:
        """The entries with these keys, those included that other processes have written by now."""
        self._look()
        # numpy compares byte strings as if padded with zeros; these are all of one length, so they are compared whole
        wanted, back = np.unique(np.array(keys, dtype=f"S{KEY_BYTES}"), return_inverse=True)
        found = Places(np.full(len(wanted), -1), np.full(len(wanted), -1))
        for number, segment in enumerate(self.segments if len(wanted) else ()):
            at = np.minimum(np.searchsorted(wanted, segment.keys), len(wanted) - 1)
            hit = segment.checked(np.flatnonzero(wanted[at] == segment.keys))
            found.segments[at[hit]], found.rows[at[hit]] = number, hit
        for number in np.unique(found.segments[found.segments >= 0]):
            _touch(self.segments[number].path)
        return found[back]

    def take(self, places: Places) -> Float16[Tensor, "n width"]:
        """The rows at these places, all of which must be there."""
        taken = torch.empty(len(places.rows), self.backbone.row_width, dtype=torch.float16)
        for number in np.unique(places.segments):
            of_it = torch.from_numpy(np.flatnonzero(places.segments == number))
            taken[of_it] = self.segments[number].rows[torch.from_numpy(places.rows)[of_it]]
        return taken

    def put(self, keys: Sequence[bytes], rows: Float16[Tensor, "n width"]) -> None:
        """Keeps rows under their keys, for this process and, where the folder can be written, for all."""
        packed = np.frombuffer(b"".join(keys), dtype=np.uint8).reshape(-1, KEY_BYTES)
        path = None
        if self.folder is not None:
            path = self.folder / f"{uuid4().hex}.safetensors"
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                if not (self.folder / ABOUT).is_file():
                    write_json(self.folder / ABOUT, {"name": self.backbone.name, "width": self.backbone.row_width})
                tensors = {"keys": torch.tensor(packed), "rows": rows, "sums": torch.tensor(checksums(rows))}
                save_tensors(path, tensors, {"format": FORMAT})
            except (InputError, OSError) as error:
                warnings.warn(f"features are not kept ({error}); set {ENVIRONMENT} to another folder", stacklevel=2)
                self.folder = path = None
        segment = None if path is None else self._open(path)
        if segment is None:
            said = checksums(rows), np.ones(len(rows), np.int8)
            segment = Segment(None, packed.view(f"S{KEY_BYTES}")[:, 0], rows.clone(), *said)
        self.segments.append(segment)

    def _look(self) -> None:
        """Opens the segments that have come since."""
        if self.folder is None or not self.folder.is_dir():
            return
        for path in sorted(self.folder.glob("*.safetensors")):
            if path.name not in self._known and (segment := self._open(path)) is not None:
                self.segments.append(segment)

    def _open(self, path: Path) -> Segment | None:
        self._known.add(path.name)
        try:
            with safe_open(path, framework="pt") as file:
                if (written := (file.metadata() or {}).get("format")) != FORMAT:
                    raise ValueError(f"another version of gopro wrote it: format {written}, not {FORMAT}")
                keys, rows, sums = map(file.get_tensor, ("keys", "rows", "sums"))  # mapped, not read
            shapes = [(len(rows), KEY_BYTES), (len(rows), self.backbone.row_width), (len(rows),)]
            if [tuple(tensor.shape) for tensor in (keys, rows, sums)] != shapes:
                raise ValueError("its tensors have other shapes")
            if (keys.dtype, rows.dtype, sums.dtype) != (torch.uint8, torch.float16, torch.int64):
                raise ValueError("its tensors have other types")
        except FileNotFoundError:  # pruned since it was listed
            return None
        except (SafetensorError, OSError, ValueError, TypeError) as error:
            warnings.warn(f"{path} does not hold features ({error}) and is left out; remove it", stacklevel=2)
            return None
        return Segment(path, keys.numpy().view(f"S{KEY_BYTES}")[:, 0], rows, sums.numpy(), np.zeros(len(rows), np.int8))


def _touch(path: Path | None) -> None:
    """Notes that a segment was of use, in its time of modification."""
    if path is not None:
        with suppress(OSError):  # pruned, or a disk that cannot be written: nothing depends on it
            os.utime(path)
