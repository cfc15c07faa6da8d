"""Files that are written whole or not at all, and names that are safe for files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from gopro.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Either the whole content stands at `path` afterwards, or what stood there before; a power cut leaves no third.

    Raises:
        InputError: it cannot be written.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _sync_names(path.parent)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            beside.unlink()


def append(path: Path, content: bytes) -> None:
    """Adds to the end of a file; afterwards all of it is on disk, or none of it in the file.

    Raises:
        InputError: it cannot be written.
    """
    try:
        with path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                left = memoryview(content)
                while left:  # a disk that fills up takes a part first
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
        if not size:
            _sync_names(path.parent)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _sync_names(folder: Path) -> None:
    """Has the names in a folder on disk, where the system knows how to."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Tensors as a safetensors file, written atomically."""
    write_atomically(path, save({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, metadata))


def write_json(path: Path, content: Any) -> None:
    """Indented JSON with a newline at its end, written atomically."""
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def slug(text: str) -> str:
    """The text as a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text.strip("/")).strip("_")
