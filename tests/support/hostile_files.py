"""Files made to do harm: pickles that execute code, decompression bombs, false headers and damage."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import struct
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


class Payload:
    """An object whose unpickling executes code, which creates the file `marker`."""

    def __init__(self, marker: Path, how: str = "system"):
        self.marker, self.how = marker, how

    def __reduce__(self) -> Any:
        import builtins
        import os

        if self.how == "system":
            return os.system, (f"touch '{self.marker}'",)
        if self.how == "open":
            return builtins.open, (str(self.marker), "w")
        if self.how == "mkdir":
            return os.mkdir, (str(self.marker),)
        return builtins.eval, (f"open({str(self.marker)!r}, 'w')",)


def files_with_code(marker: Path, state: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield checkpoints that execute code: by several calls, at several places, in each pickle and torch format."""
    for how in ("system", "open", "mkdir", "eval"):
        for place in ("state_dict", "beside", "scheduler", "alone"):
            content: dict[str, Any] = {"state_dict": dict(state), "epoch": 1, "scheduler": {}}
            content.get(place, content)["x"] = Payload(marker, how)
            yield f"{how} {place}", torch_file(Payload(marker, how) if place == "alone" else content)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        yield f"plain pickle {protocol}", pickle.dumps({"state_dict": Payload(marker)}, protocol)
    yield "old format", torch_file({"state_dict": {"ctx": Payload(marker)}}, _use_new_zipfile_serialization=False)
    yield "numpy archive", numpy_archive(Payload(marker))
    yield "TorchScript", torchscript_file(marker)


def torch_file(content: Any, **more: Any) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, **more)
    return file.getvalue()


def numpy_archive(thing: Any) -> bytes:
    file = io.BytesIO()
    np.savez(file, ctx=np.array([thing], dtype=object))
    return file.getvalue()


def numpy_file(thing: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, np.array([thing], dtype=object), allow_pickle=True)
    return file.getvalue()


def torchscript_file(marker: Path) -> bytes:
    """Return an archive that torch takes for TorchScript by its `constants.pkl`, with code in both of its pickles."""
    file = io.BytesIO(torch_file({"state_dict": Payload(marker)}))
    with zipfile.ZipFile(file, "a") as archive:
        folder = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{folder}/constants.pkl", pickle.dumps(Payload(marker), 2))
    return file.getvalue()


def memory_bombs() -> Iterator[tuple[str, bytes]]:
    """Yield small checkpoints that claim much memory."""
    half = torch.zeros(1, dtype=torch.float16)
    yield "a number repeated", torch_file({"state_dict": {"ctx": half.expand(1 << 36, 512)}})
    plain = torch_file({"state_dict": {"ctx": torch.zeros(1 << 22)}})
    compressed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(plain)) as whole, zipfile.ZipFile(compressed, "w", zipfile.ZIP_DEFLATED) as made:
        for name in whole.namelist():
            made.writestr(name, whole.read(name))
    yield "deflated", compressed.getvalue()
    yield "meta", torch_file({"state_dict": {"ctx": torch.empty(1 << 40, 512, device="meta")}})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates quantized tensors
        yield "quantized", torch_file({"ctx": torch.quantize_per_tensor(torch.ones(4, 4), 0.1, 0, torch.qint8)})
        sparse = torch.sparse_coo_tensor(torch.zeros(2, 0), [], (1 << 40, 512))
        yield "sparse", torch_file({"state_dict": {"ctx": sparse}})


def safetensors(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def false_safetensors(name: str = "context") -> Iterator[tuple[str, bytes]]:
    """Yield safetensors files with a false header."""

    def header(shape: Any = (4, 64), offsets: Any = (0, 1024), dtype: Any = "F32") -> dict[str, Any]:
        return {name: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}

    body = bytes(1024)
    yield "no bytes", b""
    yield "a header of 2^63 bytes", safetensors(b"", length=1 << 63)
    yield "a header longer than the file", safetensors(header(), length=1 << 20)
    yield "no JSON", safetensors(b"[" * 50_000)
    yield "a list", safetensors([1, 2])
    yield "an absurd shape", safetensors(header(shape=(1 << 62, 1 << 62)), body)
    yield "shape and bytes differ", safetensors(header(shape=(1 << 20, 1 << 20)), body)
    yield "a negative shape", safetensors(header(shape=(-1, 64)), body)
    yield "a shape of text", safetensors(header(shape="big"), body)
    yield "offsets beyond the end", safetensors(header(offsets=(0, 1 << 40)), body)
    yield "offsets turned round", safetensors(header(offsets=(1024, 0)), body)
    yield "a dtype that there is not", safetensors(header(dtype="F7"), body)
    yield "nothing of ours", safetensors({"x": {"dtype": "F32", "shape": [256], "data_offsets": [0, 1024]}}, body)
    yield "another shape", safetensors(header(shape=(64, 4)), body)
    yield "integers", safetensors(header(shape=(4, 64), dtype="I32"), body)
    yield "no numbers of a large shape", safetensors(header(shape=(0, 1 << 50), offsets=(0, 0)))
    yield "two at one place", safetensors(header() | {"y": header()[name]}, body)


def damaged_copies(content: bytes, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield copies of a file, cut at a random byte or with up to eight bytes changed."""
    draw = random.Random(seed)
    for i in range(count):
        at = draw.randrange(len(content))
        if i % 2:
            yield f"cut at {at}", content[:at]
        else:
            bad = bytearray(content)
            for _ in range(draw.randint(1, 8)):
                bad[draw.randrange(min(len(bad), 4096) if i % 4 else len(bad))] = draw.randrange(256)
            yield f"{i} bytes changed", bytes(bad)


def image(format: str, size: tuple[int, int] = (24, 20), mode: str = "RGB", **more: Any) -> bytes:
    file = io.BytesIO()
    Image.effect_noise(size, 60).convert(mode).save(file, format, **more)
    return file.getvalue()


def png_of(width: int, height: int) -> bytes:
    """Return a PNG whose header claims this size."""
    whole = bytearray(image("PNG"))
    whole[16:24] = struct.pack(">II", width, height)
    import zlib

    whole[29:33] = struct.pack(">I", zlib.crc32(whole[12:29]))
    return bytes(whole)


def bad_images(marker: Path) -> dict[str, bytes | Callable[[Path], Any]]:
    """Return files that are not readable images by file name: their content, or a function that creates them."""
    import os

    def bomb(format: str) -> bytes:
        file = io.BytesIO()
        Image.new("1", (14_000, 14_000)).save(file, format)
        return file.getvalue()

    return {
        "empty.jpg": b"",
        "text.png": b"no image at all",
        "cut.jpg": image("JPEG")[:-200],
        "cut.png": image("PNG")[:60],
        "cut.gif": image("GIF", mode="P")[:40],
        "cut.webp": image("WEBP")[:50],
        "header-only.bmp": image("BMP")[:54],
        "bomb.png": bomb("PNG"),
        "bomb.tif": bomb("TIFF"),
        "claims-much.png": png_of(2_000_000_000, 2_000_000_000),
        "claims-more.png": png_of(60_000, 60_000),
        "claims-nothing.png": png_of(0, 20),
        "thread.png": image("PNG", (1, 4000)),
        "float.tif": image("TIFF", mode="F"),
        "drawing.png": b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        "postscript.jpg": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(" + str(marker).encode() + b") (w) file",
        "document.png": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj",
        "pickle.png": pickle.dumps(Payload(marker)),
        "array.png": numpy_file(Payload(marker)),
        "archive.jpg": numpy_archive(Payload(marker)),
        "pipe.jpg": lambda path: os.mkfifo(path),
        "loop.jpg": lambda path: path.symlink_to(path.name),
        "nowhere.jpg": lambda path: path.symlink_to("there-is-no-such-file"),
        "device.jpg": lambda path: path.symlink_to("/dev/zero"),
        "terminal.jpg": lambda path: path.symlink_to("/dev/tty"),
        "random.png": random.Random(0).randbytes(4096),
    }


def good_images() -> dict[str, bytes]:
    """Return unusual but readable images by file name."""
    frames = [Image.effect_noise((20, 20), 60).convert("P") for _ in range(5)]
    moving = io.BytesIO()
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    Image.effect_noise((20, 30), 60).convert("RGB").save(turned, "JPEG", exif=exif)
    deep = io.BytesIO()
    Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160).save(deep, "PNG")
    return {
        "moving.gif": moving.getvalue(),
        "cmyk.jpg": image("JPEG", mode="CMYK"),
        "palette.png": image("PNG", mode="P"),
        "alpha.png": image("PNG", mode="RGBA"),
        "grey-alpha.png": image("PNG", mode="LA"),
        "one-bit.tif": image("TIFF", mode="1"),
        "turned.jpg": turned.getvalue(),
        "sixteen.png": deep.getvalue(),
        "really-a-png.jpg": image("PNG"),
        "really-a-jpeg.gif": image("JPEG"),
    }


def archives() -> Iterator[tuple[str, bytes]]:
    """Yield tar and zip files that leave their folder, hold devices or links, are damaged or claim much memory."""
    for name in (
        "../out",
        "/out",
        "a/../../out",
        "..\\out",
        "C:\\out",
        "C:out",
        "\\\\host\\out",
        "a/..",
        "~/../../out",
    ):
        yield f"tar {name}", tar_file([(name, b"x", {})])
        yield f"zip {name}", zip_file([(name, b"x", 0)])
    links = {"../out": "leads out", "/etc/passwd": "absolute", "nothing": "nowhere", "l": "itself"}
    for target, what in links.items():
        for kind, called in ((tarfile.SYMTYPE, "symbolic"), (tarfile.LNKTYPE, "hard")):
            yield f"tar, a {called} link, {what}", tar_file([("l", b"", {"type": kind, "linkname": target})])
    through = [("d", b"", {"type": tarfile.SYMTYPE, "linkname": ".."}), ("d/out", b"x", {})]
    yield "tar, a file through a link", tar_file(through)
    for kind in (tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE):
        yield f"tar, a device of type {kind!r}", tar_file([("dev", b"", {"type": kind, "devmajor": 1, "devminor": 5})])
    for mode in (0o120777, 0o020666, 0o060666, 0o010666, 0o140666):
        yield f"zip, mode {mode:o}", zip_file([("x", b"/etc/passwd", mode << 16)])
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE):
        yield f"tar.gz, a name of 1 GB, {kind!r}", long_name(kind)
    yield "tar.gz, a sparse file in a million parts", many_parts()
    yield "tar, a sparse file, cut in its parts", gzip.decompress(many_parts(2))
    yield "tar, a file and a folder of one name", tar_file([("a", b"x", {}), ("a/b", b"y", {})])
    yield "tar, cut", tar_file([("a", b"x" * 5000, {})])[:3000]
    yield "tar, a size below 0", tar_file([("a", b"", {})])[:124] + b"\x80" + bytes(400)
    yield "zip, cut", zip_file([("a", b"x" * 5000, 0)])[:3000]
    yield "no archive", b"PK\x03\x04 nothing"


def tar_file(members: list[tuple[str, bytes, dict[str, Any]]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, content, more in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def zip_file(members: list[tuple[str, bytes, int]]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content, attributes in members:
            info = zipfile.ZipInfo()
            info.filename, info.external_attr, info.create_system = name, attributes, 3
            archive.writestr(info, content)
    return file.getvalue()


def long_name(kind: bytes, size: int = 1 << 30) -> bytes:
    """Return a compressed tar whose first header claims a name of `size` bytes."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = kind, size
    return gzip.compress(info.tobuf(tarfile.GNU_FORMAT)[:512] + bytes(1 << 20))


def many_parts(blocks: int = 50_000) -> bytes:
    """Return a compressed tar with a sparse file whose list of parts fills this many blocks."""
    info = tarfile.TarInfo("a")
    info.type = tarfile.GNUTYPE_SPARSE
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT)[:512])
    header[482] = 1  # more blocks follow
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    parts = b"00000000001\0" * 42
    return gzip.compress(bytes(header) + (parts + b"\1" + bytes(7)) * blocks, 1)
