"""Archives from strangers, unpacked: plain files below one folder, and no more bytes than the disk can take."""

from __future__ import annotations

import lzma
import re
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any

from gopro.data.download import CHUNK, ROOM, Progress, Unusable
from gopro.errors import InputError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
"""File name endings of what `unpack` is for; the content decides how it is read."""

_BLOCK = 4096  # bytes of disk that even an empty file costs

_HEADERS = 1 << 20  # bytes that the headers of a tar's member may have: names, and where a sparse file has its parts

Member = tuple[str, Callable[[], IO[bytes]] | None]
"""Name and how to read it; None for a folder."""

# What the readers raise on damaged bytes; OSError comes last, where gzip's own is told from the disk's.
_DAMAGE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    LookupError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


def unpack(archive: Path, into: Path, on_progress: Progress | None = None) -> None:
    """Unpacks a zip or tar file (plain or compressed) into the new folder `into`.

    Only folders and plain files are made. A link becomes a copy of what it names within the archive: as no link ever
    stands on the disk, none can lead out (tarfile's own filters were got round by links, CVE-2025-4517). Owners, modes
    and times are not taken over. CRCs are checked where the format has them, and the end of the archive is looked for.

    Args:
        on_progress: called with the bytes of the archive that are read, and its size.

    Raises:
        Unusable: not an archive, damaged or cut off, encrypted; or a member that is a device, a link to something
            outside, or whose name is absolute or has `..`.
        InputError: it holds more than the disk has room for, or the disk cannot be written.
    """
    room = shutil.disk_usage(into.parent).free - ROOM
    try:
        into.mkdir()
        with archive.open("rb") as file:
            size = archive.stat().st_size
            for name, opener in _members(file):
                room -= _BLOCK
                target = into / _inside(name)
                if opener is None:
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    room -= _write(target, opener, room)
                if room < 0:
                    raise InputError(
                        f"{archive}: holds more than there is room for on the disk of {into.parent}; make room"
                    )
                if on_progress is not None:
                    on_progress(min(file.tell(), size), size)
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unusable(f"{archive}: not an archive that can be unpacked ({reason})") from error
    except OSError as error:
        if error.errno is None:  # raised by gzip, not by the system
            raise Unusable(f"{archive}: not an archive that can be unpacked ({error})") from error
        raise InputError(f"{error.filename or into}: cannot be written ({error.strerror})") from error


class _Tar(tarfile.TarFile):
    """A tar file of which no member's headers may be large: tarfile reads them, and what they claim, into memory."""

    def __init__(self, name: Any, mode: Any, fileobj: IO[bytes], **more: Any):
        bounded: Any = _Bounded(fileobj)
        super().__init__(name, mode, bounded, **more)

    def next(self) -> tarfile.TarInfo | None:
        bounded: Any = self.fileobj
        bounded.left = _HEADERS
        try:
            return super().next()
        finally:
            bounded.left = sys.maxsize


class _Bounded:
    """A file of which no more than `left` bytes may be asked for."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.left = sys.maxsize
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise ValueError(f"a name or header of more than {_HEADERS} bytes")
        return self._file.read(size)


def _members(file: IO[bytes]) -> Iterator[Member]:
    if zipfile.is_zipfile(file):
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            yield from _zip_members(archive)
    else:
        file.seek(0)
        with _Tar.open(fileobj=file, mode="r:*") as archive:
            yield from _tar_members(archive)


def _zip_members(archive: zipfile.ZipFile) -> Iterator[Member]:
    for info in archive.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise ValueError(f"{info.filename!r} is neither a file nor a folder")
        yield info.filename, None if info.is_dir() else lambda info=info: archive.open(info)


def _tar_members(archive: tarfile.TarFile) -> Iterator[Member]:
    for member in archive:
        if member.isdir():
            yield member.name, None
        elif member.isreg() or member.islnk() or member.issym():
            yield member.name, lambda member=member: _tar_content(archive, member)
        else:
            raise ValueError(f"{member.name!r} is neither a file nor a folder")
    # tarfile takes the end of the bytes for the end of the archive, unless a member is cut through.
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise EOFError("it is cut off")
    while stream.read(CHUNK):  # to where gzip has its CRC
        pass


def _tar_content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    try:
        content = archive.extractfile(member)
    except (KeyError, RecursionError):
        content = None
    if content is None:
        raise ValueError(f"{member.name!r} is a link to {member.linkname!r}, which is no file of the archive")
    return content


def _inside(name: str) -> PurePosixPath:
    """The member's path, if it is one below the folder that is unpacked into, on any system."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name or re.match("[A-Za-z]:", name):
        raise ValueError(f"the name {name!r} leads out of the folder")
    return path


def _write(target: Path, opener: Callable[[], IO[bytes]], room: int) -> int:
    """Copies a member until its end or until `room` is spent; returns the bytes written."""
    written = 0
    with opener() as content, target.open("wb") as file:
        while written <= room and (chunk := content.read(CHUNK)):
            file.write(chunk)
            written += len(chunk)
    return written
