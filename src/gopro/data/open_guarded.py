"""An image's file opened for reading: nothing but a plain file, and a disk that does not answer is named meanwhile."""

from __future__ import annotations

import os
import stat
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from threading import Lock, Thread

from gopro.errors import InputError

PATIENCE = 30.0
"""Seconds after which a file that is still being read is named."""


@contextmanager
def open_guarded(path: Path, name: str) -> Iterator[BufferedReader]:
    """A plain file, open for as long as the block lasts.

    A pipe without a writer, which would keep whoever opens it waiting, is refused as what it is. A read that a network
    file system does not answer cannot be broken off, so it is waited for, with a warning that names the file after
    `PATIENCE` seconds.

    Args:
        name: what to call the file.

    Raises:
        InputError: a folder, a pipe or a device.
        OSError: it cannot be opened.
    """
    with _WATCH.over(name):
        # Not blocking, as opening a pipe would; reading a plain file is the same with and without. O_BINARY: Windows.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise InputError(f"{name}: no file, but a folder, a pipe or a device; remove it")
        with open(descriptor, "rb") as file:
            yield file


class _Watch:
    """A thread that looks at what the others are reading. One a process, begun with the first file; a process that is
    forked begins its own."""

    def __init__(self) -> None:
        self._since: dict[object, tuple[str, float]] = {}
        self._thread: Thread | None = None
        self._beginning = Lock()

    @contextmanager
    def over(self, name: str) -> Iterator[None]:
        key = object()
        self._since[key] = name, time.monotonic()
        if self._thread is None or not self._thread.is_alive():
            self._begin()
        try:
            yield
        finally:
            self._since.pop(key, None)  # gone already if it was named

    def _begin(self) -> None:
        if self._beginning.acquire(blocking=False):  # else another thread does; one held in a fork must stop nobody
            try:
                if self._thread is None or not self._thread.is_alive():
                    self._thread = Thread(target=self._look, name="watch", daemon=True)
                    self._thread.start()
            finally:
                self._beginning.release()

    def _look(self) -> None:
        while True:
            time.sleep(min(1.0, PATIENCE / 4))
            now = time.monotonic()
            for key, (name, since) in list(self._since.items()):
                if now - since >= PATIENCE and self._since.pop(key, None):
                    warnings.warn(
                        f"{name}: not read after {now - since:.0f} s: the disk or network file system that it lies on "
                        "does not answer; it is waited for, Ctrl-C stops",
                        stacklevel=1,
                    )


_WATCH = _Watch()
