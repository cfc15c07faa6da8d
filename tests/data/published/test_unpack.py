"""Intact archives, damaged ones, and malicious ones."""

import io
import os
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gopro.data.published.download import FREE_BYTES, UnusableSource
from gopro.data.published.unpack import unpack
from gopro.errors import InputError

FILES = {"set/a/1.jpg": b"one" * 9000, "set/a/2 ü.jpg": b"two", "set/empty": b"", "top.txt": os.urandom(300_000)}


def zipped(path: Path, files: dict[str, bytes], change: Callable[[zipfile.ZipInfo], None] = lambda info: None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            change(info)
            archive.writestr(info, content)
    return path


def tarred(path: Path, *members: tuple[tarfile.TarInfo | str, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            if info.isreg():
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def special(name: str, kind: bytes, target: str = "") -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info, b""


def tree(folder: Path) -> dict[str, bytes]:
    """Read every file below a folder, and check that it holds only regular files and folders."""
    content: dict[str, bytes] = {}
    for path in folder.rglob("*"):
        kind = stat.S_IFMT(path.lstat().st_mode)
        assert kind in (stat.S_IFREG, stat.S_IFDIR)
        if kind == stat.S_IFREG:
            assert path.stat().st_mode & 0o7111 == 0, "executable, or with a special bit"
            content[path.relative_to(folder).as_posix()] = path.read_bytes()
    return content


def refusal(archive: Path, kind: type[InputError] = UnusableSource) -> str:
    """Return the error on a bad archive, after checking that nothing was written beside the folder."""
    around = archive.parent
    before = {path for path in around.rglob("*")}
    into = around / "into"
    with pytest.raises(InputError) as caught:
        unpack(archive, into)
    assert type(caught.value) is kind and "\n" not in str(caught.value)
    assert {path for path in around.rglob("*") if into not in (path, *path.parents)} == before
    if into.exists():
        tree(into)
        shutil.rmtree(into)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:bz2", "w:xz"])
def test_archives_are_unpacked(tmp_path: Path, kind: str):
    archive = tmp_path / "archive"
    if kind == "zip":
        zipped(archive, FILES | {"set/folder/": b""})
    else:
        tarred(archive, *FILES.items(), special("set/folder", tarfile.DIRTYPE), mode=kind)
    progress: list[tuple[int, int | None]] = []
    unpack(archive, tmp_path / "into", lambda done, total: progress.append((done, total)))
    assert tree(tmp_path / "into") == FILES and (tmp_path / "into/set/folder").is_dir()
    assert len(progress) == 5 and all(done <= archive.stat().st_size == total for done, total in progress)


OUTSIDE = [
    "../evil",
    "set/../../evil",
    "/tmp/evil-of-gopro",
    "set/..",
    "..",
    "C:evil",
    "C:/evil",
    "a\\..\\..\\evil",
    "//x/y",
]


@pytest.mark.parametrize("name", OUTSIDE)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str):
    assert "leads out" in refusal(zipped(tmp_path / "a.zip", {"fine": b"", name: b"evil"}))
    assert "leads out" in refusal(tarred(tmp_path / "a.tgz", ("fine", b""), (name, b"evil")))
    assert not Path("/tmp/evil-of-gopro").exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc/passwd", "../outside", "absent", "link", "."])
def test_links_that_lead_out_or_nowhere_are_refused(tmp_path: Path, kind: bytes, target: str):
    (tmp_path / "outside").write_bytes(b"secret")
    archive = tarred(tmp_path / "a.tgz", ("set/a", b"a"), special("link", kind, target), ("link/evil", b"evil"))
    assert "link" in refusal(archive)


def test_links_become_copies(tmp_path: Path):
    archive = tarred(
        tmp_path / "a.tgz",
        ("set/a", b"content"),
        special("set/hard", tarfile.LNKTYPE, "set/a"),
        special("set/soft", tarfile.SYMTYPE, "a"),
        special("twice", tarfile.SYMTYPE, "set/soft"),
        special("before", tarfile.SYMTYPE, "after"),
        ("after", b"later"),
    )
    unpack(archive, tmp_path / "into")
    content = dict.fromkeys(["set/a", "set/hard", "set/soft", "twice"], b"content")
    assert tree(tmp_path / "into") == content | {"before": b"later", "after": b"later"}


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE, b"Z"])
def test_devices_and_pipes_are_refused(tmp_path: Path, kind: bytes):
    archive = tarred(tmp_path / "a.tar", special("device", kind), mode="w")
    assert "neither a file nor a folder" in refusal(archive)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_in_a_zip_are_refused(tmp_path: Path, kind: int):
    def change(info: zipfile.ZipInfo) -> None:
        info.external_attr = (kind | 0o777) << 16

    assert "neither a file nor a folder" in refusal(zipped(tmp_path / "a.zip", {"link": b"/etc/passwd"}, change))


def test_modes_are_ignored(tmp_path: Path):
    info = tarfile.TarInfo("program")
    info.mode, info.uid = 0o6777, 0
    unpack(tarred(tmp_path / "a.tgz", (info, b"#!")), tmp_path / "into")
    assert tree(tmp_path / "into") == {"program": b"#!"}


def set_room(monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=FREE_BYTES + room))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_bombs_stop_at_the_room_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str):
    zeros = {f"{i}": bytes(5_000_000) for i in range(8)}
    archive = zipped(tmp_path / "a", zeros) if kind == "zip" else tarred(tmp_path / "a", *zeros.items())
    assert archive.stat().st_size < 100_000
    set_room(monkeypatch, 7_000_000)
    assert "make room" in refusal(archive, InputError)
    unpacked = tmp_path / "into"
    with pytest.raises(InputError):
        unpack(archive, unpacked)
    assert sum(len(content) for content in tree(unpacked).values()) < 8_000_000
    shutil.rmtree(unpacked)
    set_room(monkeypatch, 41_000_000)
    unpack(archive, unpacked)


def test_a_bomb_of_empty_files_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    archive = zipped(tmp_path / "a", {f"{i}/": b"" for i in range(2000)})
    set_room(monkeypatch, 4_000_000)
    assert "make room" in refusal(archive, InputError)


def test_a_bomb_of_links_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    links = [special(f"{i}", tarfile.LNKTYPE, "big") for i in range(20)]
    archive = tarred(tmp_path / "a", ("big", bytes(1_000_000)), *links, mode="w")
    set_room(monkeypatch, 5_000_000)
    assert "make room" in refusal(archive, InputError)


def test_a_zip_that_lies_about_sizes_is_refused(tmp_path: Path):
    archive = zipped(tmp_path / "a.zip", {"a": bytes(1_000_000)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<L", 1_000_000), struct.pack("<L", 10)))
    assert "CRC" in refusal(archive)


def test_an_encrypted_zip_is_refused(tmp_path: Path):
    archive = zipped(tmp_path / "a.zip", {"a": b"secret"})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    archive.write_bytes(content)
    assert "encrypted" in refusal(archive)


@pytest.mark.parametrize("content", [b"", b"PK", b"<html>", b"\x1f\x8b\x08" + bytes(20)])
def test_files_of_other_kinds_are_refused(tmp_path: Path, content: bytes):
    (tmp_path / "a.zip").write_bytes(content)
    assert "a.zip" in refusal(tmp_path / "a.zip")


@pytest.mark.parametrize("kind", ["zip", "w", "w:gz", "w:xz"])
def test_an_archive_cut_anywhere_is_refused(tmp_path: Path, kind: str):
    whole = tmp_path / "whole"
    files = {f"{i}.jpg": os.urandom(700) for i in range(5)}
    if kind == "zip":
        zipped(whole, files)
    else:
        tarred(whole, *files.items(), mode=kind)
    content = whole.read_bytes()
    # A plain tar ends in blocks of zeros, of which all but the first are padding.
    last = 5 * 1536 + 512 if kind == "w" else len(content)
    for length in sorted({*range(0, last, 97), *range(0, last, 512), last - 1}):
        (tmp_path / "cut").write_bytes(content[:length])
        refusal(tmp_path / "cut")


@given(st.integers(0, 10**6), st.integers(1, 255), st.sampled_from(["zip", "w:gz"]))
@settings(max_examples=60)
def test_a_flipped_byte_never_changes_content(
    tmp_path_factory: pytest.TempPathFactory, place: int, flip: int, kind: str
):
    folder = tmp_path_factory.mktemp("flipped")
    files = {f"set/{i}.jpg": bytes([i]) * 3000 + os.urandom(50) for i in range(4)}
    archive = zipped(folder / "a", files) if kind == "zip" else tarred(folder / "a", *files.items())
    content = bytearray(archive.read_bytes())
    content[place % len(content)] ^= flip
    archive.write_bytes(content)
    try:
        unpack(archive, folder / "into")
    except InputError:
        return
    assert set(tree(folder / "into").values()) <= set(files.values()), (
        "a zip's CRC covers the content, though not the names"
    )


def test_an_existing_folder_is_left_alone(tmp_path: Path):
    archive = zipped(tmp_path / "a.zip", FILES)
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "mine").write_bytes(b"mine")
    with pytest.raises(InputError, match="into: cannot be written"):
        unpack(archive, tmp_path / "into")
    assert tree(tmp_path / "into") == {"mine": b"mine"}


@pytest.mark.parametrize("files", [{"a": b"", "a/b": b""}, {"a/b": b"", "a": b""}, {"x" * 300: b""}])
def test_names_that_no_disk_can_hold_are_one_line(tmp_path: Path, files: dict[str, bytes]):
    assert "cannot be written" in refusal(zipped(tmp_path / "a.zip", files), InputError)
