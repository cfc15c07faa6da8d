"""One process at a time in a folder: a lock that dies with its process, and what killed processes have left there."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from filelock import FileLock, Timeout

from gopro.errors import InputError

LOCK = ".lock"
WAIT = 10.0
"""Seconds until a folder counts as taken: processes that a killed one has started see its end a little later."""


@contextmanager
def alone(folder: Path, own: Sequence[str]) -> Iterator[None]:
    """Makes the folder where there is none, keeps other processes out of it, and removes what killed ones left.

    The system holds the lock, on `.lock` in the folder, and frees it with the process, however that ends. The file
    stays and says who was the last to hold it.

    Args:
        own: names of the files that only the process in here writes, * for any characters.

    Raises:
        InputError: another process is in it, or it cannot be made or written to.
    """
    lock = FileLock(folder / LOCK, timeout=WAIT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{folder} is in use{_holder(folder)}: wait for it to end or choose another folder") from error
    except OSError as error:
        raise InputError(f"{folder} cannot be written to: {error.strerror}") from error
    except NotImplementedError as error:
        raise InputError(f"{folder} lies on a file system without locks: choose a folder on another") from error
    try:
        with suppress(OSError):  # who it is helps a person, nothing depends on it
            (folder / LOCK).write_text(f"process {os.getpid()} on {socket.gethostname()}")
        for path in leftovers(folder, own):
            with suppress(OSError):
                path.unlink()
        yield
    finally:
        lock.release()


def leftovers(folder: Path, own: Sequence[str]) -> list[Path]:
    """What stands beside the `own` files because a process ended while it wrote; see `gopro.files`."""
    found = [path for name in map(PurePath, own) for path in folder.glob(f"{name.with_name(f'.{name.name}.*')}")]
    return [path for path in found if path.suffix[1:].isdecimal()]


def _holder(folder: Path) -> str:
    try:
        said = (folder / LOCK).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return f" by {said}" if said else ""
