"""Archives from strangers, unpacked: regular files below one folder, and no more bytes than the disk has room for.

tarfile's own `filter="data"` is not enough here. Links get round it in every Python before 3.11.13, 3.12.11 and 3.13.4
(CVE-2025-4517); it bounds neither the bytes written nor the memory that a header claims; and tarfile takes an archive
that ends too early for a complete one. `shutil.unpack_archive` skips bad names in a zip without a word.
"""

from __future__ import annotations

import lzma
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PureWindowsPath
from typing import IO, Any

from gopro.data.published.download import CHUNK_BYTES, FREE_BYTES, Progress, UnusableSource
from gopro.errors import InputError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz")
"""File name endings of archives; how one is read depends on its content."""

_BLOCK_BYTES = 4096  # disk space that even an empty file takes

_HEADER_BYTES = 1 << 20  # most that the headers of a tar's member may have: names, and the map of a sparse file

Member = tuple[str, Callable[[], IO[bytes]] | None]
"""Name of a member and how to open it; None for a folder."""

# The readers raise these on damaged bytes. OSError is handled apart: gzip raises it, and so does a full disk.
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


def unpack(archive: Path, into: Path, on_progress: Progress = lambda done, total: None) -> None:
    """Unpack a zip or tar file (plain or compressed) into the new folder `into`.

    Only folders and regular files are made. A link becomes a copy of the file that it names within the archive: with
    no link on the disk, none can lead out. Owners, modes and times are ignored. CRCs are verified where the format has
    them, and the archive must be complete.

    Args:
        on_progress: takes the bytes of the archive read so far, and its size.

    Raises:
        UnusableSource: not an archive, damaged, incomplete or encrypted; or a member that is a device, a link to
            something outside, or has an absolute name or `..` in it.
        InputError: it holds more than the disk has room for, or the disk cannot be written.
    """
    room = shutil.disk_usage(into.parent).free - FREE_BYTES
    try:
        into.mkdir()
        with archive.open("rb") as file:
            size = archive.stat().st_size
            for name, opener in _members(file):
                room -= _BLOCK_BYTES
                target = into / _inside(name)
                if opener is None:
                    target.mkdir(parents=True, exist_ok=True)
                else:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    room -= _write(target, opener, room)
                if room < 0:
                    raise InputError(f"{archive}: its content does not fit on the disk of {into.parent}; make room")
                on_progress(min(file.tell(), size), size)
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UnusableSource(f"{archive}: not an archive that can be unpacked ({reason})") from error
    except OSError as error:
        if error.errno is None:  # raised by gzip, not by the system
            raise UnusableSource(f"{archive}: not an archive that can be unpacked ({error})") from error
        raise InputError(f"{error.filename or into}: cannot be written ({error.strerror})") from error


class _Tar(tarfile.TarFile):
    """A tar file with bounded headers: tarfile would read any size that they claim into memory."""

    def __init__(self, name: Any, mode: Any, fileobj: IO[bytes], **options: Any):
        bounded: Any = _Bounded(fileobj)
        super().__init__(name, mode, bounded, **options)

    def next(self) -> tarfile.TarInfo | None:
        bounded: Any = self.fileobj
        bounded.left = _HEADER_BYTES
        try:
            return super().next()
        finally:
            bounded.left = sys.maxsize


class _Bounded:
    """A file of which at most `left` more bytes may be read."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.left = sys.maxsize
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def read(self, size: int) -> bytes:
        self.left -= size
        if self.left < 0:
            raise ValueError(f"a name or header of more than {_HEADER_BYTES} bytes")
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
    # tarfile also stops where the bytes end, unless in the middle of a member; a complete archive ends in zeros.
    stream = archive.fileobj
    assert stream is not None
    stream.seek(archive.offset)
    if stream.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
        raise EOFError("it is incomplete")
    while stream.read(CHUNK_BYTES):  # up to gzip's CRC
        pass


def _tar_content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    try:
        content = archive.extractfile(member)
    except (KeyError, RecursionError):
        content = None
    if content is None:
        raise ValueError(f"{member.name!r} is a link to {member.linkname!r}, which is no file of the archive")
    return content


def _inside(name: str) -> str:
    """Return the member's path relative to the folder, if no system takes it for one that leads out of it."""
    path = PureWindowsPath(name)  # knows drives, and takes slashes and backslashes alike
    if path.anchor or ".." in path.parts or "\0" in name:
        raise ValueError(f"the name {name!r} leads out of the folder")
    return path.as_posix()


def _write(target: Path, opener: Callable[[], IO[bytes]], room: int) -> int:
    """Copy a member until its end or until `room` is used up; return the bytes written."""
    written = 0
    with opener() as content, target.open("wb") as file:
        while written <= room and (chunk := content.read(CHUNK_BYTES)):
            written += file.write(chunk)
    return written
