"""A lock on a folder that ends with its process, and the removal of files that killed processes left half written."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from filelock import FileLock, Timeout

from gopro.errors import InputError

LOCK = ".lock"
LOCK_WAIT_SECONDS = 10.0
"""Seconds to wait for a folder that another process holds. The children of a killed process need a moment to notice
its death and to let go."""


@contextmanager
def lock_folder(folder: Path, own_files: Sequence[str]) -> Iterator[None]:
    """Create the folder if it is missing, keep other processes out of it and delete half-written files.

    The operating system holds the lock, on `.lock` in the folder, and frees it when the process ends, however it ends.
    The lock file stays and names its last holder.

    Args:
        folder: the folder to lock.
        own_files: glob patterns of the files that only the holder of the lock writes. Temporary files beside them are
            left over from killed processes and are deleted; see `leftovers`.

    Raises:
        InputError: another process holds the lock; the folder cannot be created or written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with lock_folder(Path(folder), ["learned.safetensors"]):
        ...         (Path(folder) / ".lock").exists()
        True
    """
    lock = FileLock(folder / LOCK, timeout=LOCK_WAIT_SECONDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{folder} is in use{_holder(folder)}: wait for it to end or choose another folder") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {error.strerror}") from error
    except NotImplementedError as error:
        raise InputError(f"{folder} is on a file system without locks: choose a folder on another one") from error
    try:
        with suppress(OSError):  # only a hint for people; nothing depends on it
            (folder / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}")
        for path in leftovers(folder, own_files):
            with suppress(OSError):
                path.unlink()
        yield
    finally:
        lock.release()


def leftovers(folder: Path, own_files: Sequence[str]) -> list[Path]:
    """List the temporary files of `gopro.files.write_atomically` that stand beside `own_files`.

    `write_atomically` writes `learned.safetensors` by way of `.learned.safetensors.PID`, which remains if the process
    is killed before it renames it.
    """
    patterns = [name.with_name(f".{name.name}.*") for name in map(PurePath, own_files)]
    return [path for pattern in patterns for path in folder.glob(str(pattern)) if path.suffix[1:].isdecimal()]


def _holder(folder: Path) -> str:
    """Return " by process 12 on myhost" if the lock file names its holder, else an empty string."""
    try:
        holder = (folder / LOCK).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f" by {holder}" if holder else ""
