"""One file from a web server: resumed after a cut, checked, and under its name only when it is whole."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from email.message import Message
from pathlib import Path
from typing import Any

from gopro.errors import InputError

CHUNK = 1 << 18
TIMEOUT = 30  # seconds without a byte
TRIES = 5  # in a row that bring no new byte
ROOM = 1 << 28
"""Bytes of disk that stay free."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and the bytes there will be (None where the server does not say)."""


@dataclass(frozen=True)
class _Origin:
    """What the bytes of a .part file are a part of; written beside it before its first byte."""

    url: str
    validator: str | None
    """The server's strong ETag, else its Last-Modified: what If-Range takes."""

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self)), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> _Origin | None:
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


class Unusable(InputError):
    """What a source offers is not what it should be: another source may have it, another try won't help."""


class _Cut(Exception):
    """The transfer failed in a way that another try may mend."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


def _opener() -> urllib.request.OpenerDirector:
    """urllib's default opener, less what follows a redirect to file: and ftp:."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    opener.addheaders = [("User-Agent", "gopro")]
    return opener


def fetch(
    url: str, target: Path, checksum: str | None = None, on_progress: Progress | None = None, pause: float = 2.0
) -> None:
    """Downloads `url` to `target`, unless a file of that name is there already.

    Bytes gather in `target` + `.part`. After a cut, in this call or an earlier process, only the rest is asked for,
    on condition (If-Range) that the file on the server is still the one that was begun; otherwise it starts anew.
    The file gets its name when its length is what the server announced and its checksum is right.

    Args:
        checksum: `md5:HEX` or `sha256:HEX` of the whole file.
        pause: seconds before a second try, doubled for each further one.

    Raises:
        Unusable: the server refuses (404 and the like) or sends a web page in place of a file, or the checksum is
            wrong.
        InputError: the line stays cut, the disk has no room or cannot be written.
    """
    if target.exists():
        return
    part, note = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        failed = 0
        while True:
            before = _size(part)
            try:
                _transfer(url, part, note, on_progress or (lambda have, total: None))
                break
            except _Cut as cut:
                failed = 0 if _size(part) > before else failed + 1
                if failed == TRIES:
                    raise InputError(
                        f"{url}: {cut}, {TRIES} times in a row; what has come is kept, the same command goes on from it"
                    ) from cut
                time.sleep(max(cut.wait, pause * 2 ** max(failed - 1, 0)))
        if checksum is not None and (found := digest(part, checksum.partition(":")[0])) != checksum:
            part.unlink()
            note.unlink()
            raise Unusable(
                f"{url}: what came has the checksum {found}, not {checksum}: it is damaged, or no longer the same "
                "file; it was removed, try again later"
            )
        part.replace(target)
        note.unlink()
    except OSError as error:
        raise InputError(f"{error.filename or target}: cannot be written ({error.strerror or error})") from error


def digest(file: Path, algorithm: str) -> str:
    """`algorithm:HEX` of a file's bytes. Raises OSError."""
    with file.open("rb") as stream:
        hashed = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{hashed.hexdigest()}"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _transfer(url: str, part: Path, note: Path, on_progress: Progress) -> None:
    """One request: the rest of `part`, or all of it. Returns when the file is whole; raises _Cut when it is not."""
    begun = _Origin.read(note)
    have = _size(part) if begun is not None and begun.url == url and begun.validator else 0
    request = urllib.request.Request(url)
    if have and begun is not None and begun.validator:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", begun.validator)
    try:
        answer = _opener().open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # nothing beyond what is there: it is whole, or it became shorter
                if begun is not None and _resource_length(error.headers) == have and _same(begun, error.headers):
                    return
                part.unlink()
                raise _Cut("the file on the server has changed") from error
            if error.code in (408, 425, 429) or error.code >= 500:
                raise _Cut(f"the server says {error.code} {error.reason}", _retry_after(error.headers)) from error
            raise Unusable(f"{url}: the server says {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise _Cut(f"no connection ({getattr(error, 'reason', None) or error or type(error).__name__})") from error
    with answer:
        _receive(answer, url, part, note, have, on_progress)


def _receive(answer: Any, url: str, part: Path, note: Path, have: int, on_progress: Progress) -> None:
    headers: Message = answer.headers
    if headers.get_content_type() == "text/html":
        raise Unusable(f"{url}: the server sends a web page, not the file; open the address in a browser to see why")
    if answer.status == 206:
        if _range_start(headers) != have:
            part.unlink()
            raise _Cut("the server sends another part than was asked for")
        total = _resource_length(headers)
    else:
        have = 0
        length = headers.get("Content-Length")
        total = int(length) if length is not None and length.isdecimal() else None
        part.unlink(missing_ok=True)  # before the note: bytes never stand beside another file's note
        _Origin(url, _validator(headers)).write(note)
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - have + ROOM > free:
        raise InputError(
            f"{part.parent}: no room for {url}: {(total - have) / 1e9:.1f} GB to come, {free / 1e9:.1f} GB free"
        )
    with part.open("ab") as file:
        on_progress(have, total)
        while chunk := _read(answer, have):
            if total is None and shutil.disk_usage(part.parent).free < ROOM:
                raise InputError(
                    f"{part.parent}: no room for {url}, which goes on after {have / 1e9:.1f} GB; make room"
                )
            file.write(chunk)
            have += len(chunk)
            on_progress(have, total)
    if total is not None and have != total:
        if have > total:
            part.unlink()
        raise _Cut(f"{have} of {total} bytes came")


def _read(answer: Any, have: int) -> bytes:
    try:
        return answer.read(CHUNK)
    except (http.client.HTTPException, OSError) as error:
        raise _Cut(f"the connection broke after {have} bytes ({type(error).__name__})") from error


def _validator(headers: Message) -> str | None:
    etag = headers.get("ETag")
    return headers.get("Last-Modified") if etag is None or etag.startswith("W/") else etag


def _same(begun: _Origin, headers: Message) -> bool:
    """Whether these headers do not say that the file is another one by now."""
    return _validator(headers) in (None, begun.validator)


def _range_start(headers: Message) -> int | None:
    match = re.fullmatch(r"bytes (\d+)-\d+/(?:\d+|\*)", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _resource_length(headers: Message) -> int | None:
    match = re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", headers.get("Content-Range", ""))
    return int(match[1]) if match else None


def _retry_after(headers: Message) -> float:
    seconds = headers.get("Retry-After", "")
    return min(float(seconds), 60.0) if seconds.isdecimal() else 0.0
