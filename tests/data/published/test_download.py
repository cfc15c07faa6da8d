"""Downloads over connections that break, from servers that lie, change their files or refuse."""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gopro.data.published.download import FREE_BYTES, TRIES, UnusableSource, digest, download
from gopro.errors import InputError
from tests.support.web_server import Handler, Site, serving

CONTENT = random.Random(1).randbytes(700_001)
OTHER = random.Random(2).randbytes(650_000)
MD5 = f"md5:{hashlib.md5(CONTENT).hexdigest()}"


@pytest.fixture
def site() -> Iterator[Site]:
    with serving() as site:
        site.files["/a.zip"] = CONTENT
        yield site


def get(site: Site, target: Path, checksum: str | None = None, path: str = "/a.zip") -> bytes:
    """Download a file, check that nothing is left beside it, and return its content."""
    download(site.url(path), target, checksum, pause=0)
    assert [file.name for file in target.parent.iterdir()] == [target.name]
    return target.read_bytes()


def refusal(site: Site, target: Path, kind: type[InputError] = InputError, checksum: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        download(site.url("/a.zip"), target, checksum, pause=0)
    assert type(caught.value) is kind and "\n" not in str(caught.value) and not target.exists()
    return str(caught.value)


@pytest.mark.parametrize("checksum", [None, MD5, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"])
def test_a_file_is_downloaded_once(site: Site, tmp_path: Path, checksum: str | None):
    progress: list[tuple[int, int | None]] = []
    download(
        site.url("/a.zip"), tmp_path / "new" / "a.zip", checksum, lambda done, total: progress.append((done, total))
    )
    assert (tmp_path / "new" / "a.zip").read_bytes() == CONTENT
    assert progress[0] == (0, len(CONTENT)) and progress[-1] == (len(CONTENT), len(CONTENT))
    assert progress == sorted(progress)
    assert digest(tmp_path / "new" / "a.zip", "md5") == MD5
    download(site.url("/a.zip"), tmp_path / "new" / "a.zip", checksum)
    assert len(site.requests) == 1, "a file that exists was requested again"


def test_a_broken_transfer_is_resumed(site: Site, tmp_path: Path):
    site.faults["/a.zip"] += [300_000, 500_000]
    assert get(site, tmp_path / "a", MD5) == CONTENT
    etag = f'"{MD5[4:]}"'
    assert [r.range for r in site.requests] == [None, "bytes=300000-", "bytes=500000-"]
    assert [r.if_range for r in site.requests] == [None, etag, etag]


def test_a_connection_that_keeps_breaking_is_given_up_and_resumed_later(site: Site, tmp_path: Path):
    site.faults["/a.zip"] += [300_000] * (TRIES + 1)
    assert "run the same command again to resume" in refusal(site, tmp_path / "a")
    assert len(site.requests) == TRIES + 1, "the first try brought bytes and counts as no failure"
    assert (tmp_path / "a.part").read_bytes() == CONTENT[:300_000]
    assert get(site, tmp_path / "a") == CONTENT and site.requests[-1].range == "bytes=300000-"


def test_an_absent_server_is_named(tmp_path: Path):
    with serving() as site:
        pass
    assert "no connection" in refusal(site, tmp_path / "a")


@pytest.mark.parametrize("takes_ranges", [True, False])
@pytest.mark.parametrize("before", [{}, {"Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_parts_of_two_versions_are_not_joined(site: Site, tmp_path: Path, before: dict[str, str], takes_ranges: bool):
    site.headers, site.takes_ranges = before, takes_ranges
    site.faults["/a.zip"] += [300_000] * (TRIES + 1)
    refusal(site, tmp_path / "a")
    site.files["/a.zip"] = OTHER
    site.headers = {"Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT"} if before else {}
    assert get(site, tmp_path / "a") == OTHER
    assert site.requests[-1].if_range == (before.get("Last-Modified") or f'"{MD5[4:]}"')


@pytest.mark.parametrize("identity", [{"X-None": "1"}, {"ETag": 'W/"weak"'}])
def test_a_file_without_a_strong_validator_starts_again(site: Site, tmp_path: Path, identity: dict[str, str]):
    site.headers = identity
    site.faults["/a.zip"] += [300_000]
    assert get(site, tmp_path / "a") == CONTENT
    assert [r.range for r in site.requests] == [None, None]


def test_another_address_starts_again(site: Site, tmp_path: Path):
    site.faults["/a.zip"] += [300_000] * (TRIES + 1)
    refusal(site, tmp_path / "a")
    site.files["/b.zip"] = OTHER
    assert get(site, tmp_path / "a", path="/b.zip") == OTHER and site.requests[-1].range is None


def test_a_server_without_ranges_starts_again(site: Site, tmp_path: Path):
    site.takes_ranges = False
    site.faults["/a.zip"] += [300_000, 600_000]
    assert get(site, tmp_path / "a", MD5) == CONTENT


def test_a_server_that_sends_another_range_is_not_trusted(site: Site, tmp_path: Path):
    def send_another_range(handler: Handler) -> None:
        rest = len(CONTENT) - 300_000  # the right length from the wrong place
        headers = {"Content-Range": f"bytes 0-{rest - 1}/{len(CONTENT)}", "ETag": f'"{MD5[4:]}"'}
        handler.answer(206, headers, CONTENT[:rest])

    site.faults["/a.zip"] += [300_000, send_another_range]
    assert get(site, tmp_path / "a") == CONTENT


def test_a_wrong_checksum_leaves_nothing(site: Site, tmp_path: Path):
    assert "checksum" in refusal(site, tmp_path / "a", UnusableSource, f"md5:{'0' * 32}")
    assert not list(tmp_path.iterdir())


def test_a_wrong_length_fails_the_checksum(site: Site, tmp_path: Path):
    site.faults["/a.zip"] += [lambda handler: handler.answer(200, {}, CONTENT[:1000])]
    assert "checksum" in refusal(site, tmp_path / "a", UnusableSource, MD5)
    assert get(site, tmp_path / "a", MD5) == CONTENT


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_not_tried_again(site: Site, tmp_path: Path, code: int):
    site.faults["/a.zip"] += [lambda handler: handler.answer(code)]
    assert str(code) in refusal(site, tmp_path / "a", UnusableSource)
    assert len(site.requests) == 1


def test_a_web_page_in_place_of_the_file_is_refused(site: Site, tmp_path: Path):
    page = {"Content-Type": "text/html; charset=utf-8"}
    site.faults["/a.zip"] += [lambda handler: handler.answer(200, page, b"<html>quota exceeded")]
    assert "web page" in refusal(site, tmp_path / "a", UnusableSource)
    assert not list(tmp_path.iterdir())


def test_a_busy_server_is_tried_again(site: Site, tmp_path: Path):
    busy = [lambda handler, code=code: handler.answer(code, {"Retry-After": "0"}) for code in (503, 429, 500)]
    site.faults["/a.zip"] += busy
    assert get(site, tmp_path / "a") == CONTENT and len(site.requests) == 4


def test_redirects_are_followed_to_http_only(site: Site, tmp_path: Path):
    site.redirects["/b"], site.redirects["/c"] = site.url("/c"), "/a.zip"
    assert get(site, tmp_path / "a", MD5, "/b") == CONTENT
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    for elsewhere in (secret.as_uri(), "ftp://127.0.0.1/x"):
        del site.files["/a.zip"]
        site.redirects["/a.zip"] = elsewhere
        refusal(site, tmp_path / "new", UnusableSource)
        site.files["/a.zip"] = CONTENT


def test_a_complete_part_is_only_renamed(site: Site, tmp_path: Path):
    (tmp_path / "a.part").write_bytes(CONTENT)
    note = {"url": site.url("/a.zip"), "validator": f'"{MD5[4:]}"', "total": len(CONTENT)}
    (tmp_path / "a.part.json").write_text(json.dumps(note))
    progress: list[int] = []
    download(site.url("/a.zip"), tmp_path / "a", MD5, lambda done, total: progress.append(done))
    assert (tmp_path / "a").read_bytes() == CONTENT and not progress and not site.requests


@pytest.mark.parametrize("note", ["", "[]", '{"url": 1}', '{"url": "x", "validator": "y", "more": 1}'])
def test_a_part_with_an_invalid_note_starts_again(site: Site, tmp_path: Path, note: str):
    (tmp_path / "a.part").write_bytes(OTHER[:1000])
    (tmp_path / "a.part.json").write_text(note)
    assert get(site, tmp_path / "a") == CONTENT


def test_a_part_longer_than_the_file_starts_again(site: Site, tmp_path: Path):
    (tmp_path / "a.part").write_bytes(OTHER + CONTENT)
    (tmp_path / "a.part.json").write_text(
        json.dumps({"url": site.url("/a.zip"), "validator": f'"{MD5[4:]}"', "total": None})
    )
    assert get(site, tmp_path / "a") == CONTENT


def test_a_length_that_is_not_announced(site: Site, tmp_path: Path):
    site.chunked = True
    site.faults["/a.zip"] += [300_000]
    assert get(site, tmp_path / "a") == CONTENT


def test_a_file_larger_than_the_disk_is_refused_beforehand(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=FREE_BYTES + len(CONTENT) - 1))
    assert "no room" in refusal(site, tmp_path / "a")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=FREE_BYTES + len(CONTENT)))
    assert get(site, tmp_path / "a") == CONTENT


def test_an_unwritable_folder_is_named(site: Site, tmp_path: Path):
    (tmp_path / "file").touch()
    assert "cannot be written" in refusal(site, tmp_path / "file" / "a")
    assert not site.requests
    if os.geteuid() != 0:  # root may write anywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot be written (Permission denied)" in refusal(site, tmp_path / "locked" / "a")


def test_a_killed_download_is_resumed(site: Site, tmp_path: Path):
    site.delay = 0.05
    site.files["/a.zip"] = CONTENT * 4
    program = "import sys; from pathlib import Path; from gopro.data.published.download import download; "
    program += "download(sys.argv[1], Path(sys.argv[2]))"
    process = subprocess.Popen([sys.executable, "-c", program, site.url("/a.zip"), str(tmp_path / "a")])
    part = tmp_path / "a.part"
    while not (part.exists() and part.stat().st_size > 400_000):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.wait()
    site.delay = 0
    downloaded = part.stat().st_size
    assert get(site, tmp_path / "a") == CONTENT * 4
    assert downloaded < 4 * len(CONTENT) and site.requests[-1].range == f"bytes={downloaded}-"


@given(
    st.lists(st.integers(0, 5000), max_size=6),
    st.binary(min_size=1, max_size=5000),
    st.booleans(),
    st.booleans(),
)
@settings(max_examples=40)
def test_a_file_is_complete_wherever_its_transfer_broke(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], content: bytes, takes_ranges: bool, chunked: bool
):
    with serving() as site:
        site.files["/a"], site.takes_ranges, site.chunked = content, takes_ranges, chunked
        site.faults["/a"] += cuts
        target = tmp_path_factory.mktemp("cuts") / "a"
        for _ in range(len(cuts) + 1):
            try:
                download(site.url("/a"), target, pause=0)
            except InputError as error:
                assert "in a row" in str(error)
            else:
                break
        assert target.read_bytes() == content
