"""Download of one file: resumed after a broken connection, verified, and under its name only once it is complete."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import requests
import urllib3
from requests.adapters import HTTPAdapter

from gopro.errors import InputError, one_line
from gopro.network import unreachable

CHUNK_BYTES = 1 << 18
TIMEOUT_SECONDS = 30  # without a byte
TRIES = 5
"""Attempts in a row that may bring no new byte."""
FREE_BYTES = 1 << 28
"""Disk space that downloads and unpacking leave free."""

BUSY = (408, 425, 429, 500, 502, 503, 504)  # statuses that may be gone at the next try

Progress = Callable[[int, int | None], None]
"""Takes the bytes so far and the bytes in all (None if the server does not announce them)."""


class UnusableSource(InputError):
    """A source that does not offer what it should: another source may help, another try will not."""


class _BrokenTransfer(Exception):
    """A failed transfer that is worth another try."""


def download(
    url: str,
    target: Path,
    checksum: str | None = None,
    on_progress: Progress = lambda done, total: None,
    pause: float = 2.0,
) -> None:
    """Download `url` to `target`, unless a file of that name exists.

    Bytes gather in `target` + `.part`. After a broken connection, in this call or an earlier process, only the rest is
    requested, on condition (If-Range) that the file on the server is still the same; otherwise it starts again. The
    file gets its name once it has the announced length and the right checksum.

    `requests` makes the connections, follows redirects (to http and https alone) and repeats requests that a server is
    too busy for. It has no resume, and the libraries that have one tie it to one host (huggingface_hub) or do not check
    that the file is still the same.

    Args:
        checksum: `md5:HEX` or `sha256:HEX` of the whole file.
        pause: seconds before the second try, doubled for each further one.

    Raises:
        UnusableSource: the server refuses (404 and the like) or sends a web page in place of a file, or the checksum
            is wrong.
        InputError: no connection, or one that keeps breaking; no room on the disk, or it cannot be written.
    """
    if target.exists():
        return
    if (reason := unreachable(url)) is not None:
        raise InputError(f"{url}: no connection to {reason}; run the same command again when there is one")
    part, note = target.with_name(f"{target.name}.part"), target.with_name(f"{target.name}.part.json")
    failures = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _session(pause) as session:
            while True:
                before = _size(part)
                try:
                    _transfer(session, url, part, note, on_progress)
                    break
                except _BrokenTransfer as error:
                    failures = 0 if _size(part) > before else failures + 1
                    if failures == TRIES:
                        raise InputError(
                            f"{url}: {error}, {TRIES} times in a row; run the same command again to resume"
                        ) from error
                    time.sleep(pause * 2 ** max(failures - 1, 0))
        if checksum is not None and (actual := digest(part, checksum.partition(":")[0])) != checksum:
            part.unlink()
            note.unlink()
            raise UnusableSource(
                f"{url}: the checksum is {actual}, not {checksum}: the file was damaged or replaced; try again later"
            )
        part.replace(target)
        note.unlink()
    except (requests.exceptions.InvalidSchema, requests.TooManyRedirects) as error:
        raise UnusableSource(f"{url}: {error}") from error
    except requests.RequestException as error:
        raise InputError(f"{url}: no connection ({one_line(error)})") from error
    except OSError as error:
        raise InputError(f"{error.filename or target}: cannot be written ({error.strerror or error})") from error


def digest(file: Path, algorithm: str) -> str:
    """Return `algorithm:HEX` of a file's bytes. Raises OSError."""
    with file.open("rb") as stream:
        hashed = hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False))
    return f"{algorithm}:{hashed.hexdigest()}"


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _session(pause: float) -> requests.Session:
    session = requests.Session()
    # The transfer is counted in bytes of the file, so no server may compress it on the way.
    session.headers.update({"User-Agent": "gopro", "Accept-Encoding": "identity"})
    retries = urllib3.Retry(TRIES - 1, backoff_factor=pause, status_forcelist=BUSY, raise_on_status=False)
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=retries))
    return session


def _transfer(session: requests.Session, url: str, part: Path, note: Path, on_progress: Progress) -> None:
    """Request the rest of `part`, or all of it, and return once it is complete.

    Raises:
        _BrokenTransfer: it is not complete yet.
    """
    validator, total = _read_note(note, url)
    done = _size(part) if validator else 0
    if done and done == total:
        return
    condition = {"Range": f"bytes={done}-", "If-Range": validator} if done else {}
    with session.get(url, headers=condition, stream=True, timeout=TIMEOUT_SECONDS) as response:
        if response.status_code == 416:  # the range lies beyond the end
            part.unlink()
            raise _BrokenTransfer("the file on the server has changed")
        if response.status_code in BUSY:
            raise InputError(f"{url}: the server says {response.status_code} {response.reason}; try again later")
        if not response.ok:
            raise UnusableSource(f"{url}: the server says {response.status_code} {response.reason}")
        if response.headers.get("Content-Type", "").startswith("text/html"):
            raise UnusableSource(f"{url}: the server sends a web page, not the file; open the address in a browser")
        if response.status_code != 206 or not done:
            part.unlink(missing_ok=True)  # before the note: bytes never lie beside the note of another file
            done, total = 0, _write_note(note, url, response.headers)
        elif not response.headers.get("Content-Range", "").startswith(f"bytes {done}-"):
            part.unlink()
            raise _BrokenTransfer("the server sends another range than was requested")
        _receive(response, part, done, total, on_progress)


def _write_note(note: Path, url: str, headers: Mapping[str, str]) -> int | None:
    """Note beside a .part file which file on the server its bytes belong to; return the length of that file."""
    length, etag = headers.get("Content-Length", ""), headers.get("ETag", "W/")
    total = int(length) if re.fullmatch("[0-9]+", length) else None
    validator = headers.get("Last-Modified") if etag.startswith("W/") else etag  # If-Range takes no weak ETag
    note.write_text(json.dumps({"url": url, "validator": validator, "total": total}), encoding="utf-8")
    return total


def _read_note(note: Path, url: str) -> tuple[str | None, int | None]:
    """Return the value for If-Range and the length of the file; None for both if the bytes belong to another file."""
    try:
        content = json.loads(note.read_text(encoding="utf-8"))
        return (content["validator"], content["total"]) if content["url"] == url else (None, None)
    except (OSError, ValueError, LookupError, TypeError):
        return None, None


def _receive(response: requests.Response, part: Path, done: int, total: int | None, on_progress: Progress) -> None:
    """Append the response's bytes to `part`, which has `done` of `total`."""
    free = shutil.disk_usage(part.parent).free
    if total is not None and total - done + FREE_BYTES > free:
        raise InputError(
            f"{part.parent}: no room for {part.stem}: it needs {(total - done) / 1e9:.1f} GB more and "
            f"{free / 1e9:.1f} GB are free; make room or choose another --root"
        )
    with part.open("ab") as file:
        on_progress(done, total)
        try:
            # Not decoded: some servers declare a .tar.gz as gzip-encoded, but its compressed bytes are the file.
            for chunk in response.raw.stream(CHUNK_BYTES, decode_content=False):
                done += file.write(chunk)
                on_progress(done, total)
        except urllib3.exceptions.HTTPError as error:
            raise _BrokenTransfer(f"the connection broke after {done} bytes ({type(error).__name__})") from error
    if total is not None and done != total:
        if done > total:
            part.unlink()
        raise _BrokenTransfer(f"{done} of {total} bytes arrived")
