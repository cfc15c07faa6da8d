"""Write files atomically, and make file names safe."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gopro.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a crash or power cut leaves either the old content or the new, never a mixture.

    Raises:
        InputError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def append(path: Path, content: bytes) -> None:
    """Append to a file and flush it to disk; if that fails, restore the file's previous length.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        with path.open("ab", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            try:
                rest = memoryview(content)
                while rest:  # a disk that fills up may take a part before it fails
                    rest = rest[file.write(rest) :]
                os.fsync(file.fileno())
            except OSError:
                with suppress(OSError):
                    file.truncate(size)
                raise
        if not size:
            _sync_folder(path.parent)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error


def _sync_folder(folder: Path) -> None:
    """Flush a folder's list of names to disk, so that a rename or a new file survives a power cut."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):  # some network file systems refuse
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors to a safetensors file, atomically."""
    from safetensors.torch import save  # imports torch, which commands that only list data do not need

    write_atomically(path, save({key: t.detach().cpu().contiguous() for key, t in tensors.items()}, metadata))


def write_json(path: Path, content: Any) -> None:
    """Write indented JSON with a final newline, atomically."""
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def slug(text: str) -> str:
    """Turn a text into a file name."""
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in text.strip("/")).strip("_")
