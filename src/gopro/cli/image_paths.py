"""The image files that a command's arguments name: files, folders, and `-` for a list on stdin."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from gopro.errors import InputError


class ImagePaths:
    """Iterates over the paths of the images that the arguments name, and collects errors on the way.

    Attributes:
        count: number of images; None if they come from stdin, which is read while it is written.
        errors: one line for each image or folder that cannot be read.
        skipped: number of files in the folders whose names are not those of images.
    """

    def __init__(self, arguments: Sequence[str], ignored: Path | None):
        self.errors: list[str] = []
        self.skipped = 0
        self.count: int | None = None
        self._ignored = ignored
        self._paths: Iterator[str] | list[str] = self._expand(arguments)
        if "-" not in arguments:
            self._paths = list(self._paths)
            self.count = len(self._paths)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def add_error(self, error: InputError) -> None:
        self.errors.append(str(error))

    def _expand(self, arguments: Sequence[str]) -> Iterator[str]:
        for argument in arguments:
            for path in _stdin_lines() if argument == "-" else [argument]:
                yield from self._files(path)

    def _files(self, path: str) -> Iterator[str]:
        from gopro.data.folders.class_folders import SPLIT_FILE
        from gopro.data.folders.find_images import files_below, is_image

        if not os.path.isdir(path):
            yield path
            return
        errors_before, empty = len(self.errors), True
        for file in files_below(Path(path), ignored=self._ignored, on_error=self.add_error):
            if is_image(file):
                empty = False
                yield os.fspath(file)
            elif file.name != SPLIT_FILE:
                self.skipped += 1
        if empty and len(self.errors) == errors_before:
            self.add_error(InputError(f"{path}: no images in this folder"))


def _stdin_lines() -> Iterator[str]:
    """Yield the lines of stdin as they arrive.

    Reads the file descriptor itself: a thread that waits in `sys.stdin` holds its lock, on which Python hangs at exit.
    """
    rest = b""
    while chunk := os.read(0, 1 << 16):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (os.fsdecode(line) for line in map(_without_return, lines) if line)
    if rest := _without_return(rest):
        yield os.fsdecode(rest)


def _without_return(line: bytes) -> bytes:
    return line.removesuffix(b"\r")
