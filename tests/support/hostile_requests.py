"""Hostile requests to `gopro serve`, and a client that sends their bytes unchanged."""

from __future__ import annotations

import json
import random
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.support import hostile_files

SEED = 11

NAMES = ("chess pawn", "soccer ball", "trophy")
BOUNDARY = "----edge"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class RawAnswer:
    """The answer to a request; status 0 if the connection was closed without one, -1 after a timeout."""

    status: int
    body: bytes = b""

    @property
    def harmless(self) -> bool:
        """Return whether the server neither failed nor revealed a traceback or a file."""
        answered = 200 <= self.status < 500 or self.status in (0, 503)
        return answered and not any(secret in self.body for secret in (b"Traceback", b"root:", b"site-packages"))


class RawClient:
    """A client of the server at `url`."""

    def __init__(self, url: str):
        self.url, self.port = url, int(url.rpartition(":")[2])

    def send(self, *parts: bytes, pause: float = 0.0, seconds: float = 30.0, shut: bool = False) -> RawAnswer:
        """Send bytes unchanged, `pause` seconds after each part, and return the answer.

        Args:
            shut: close the sending side afterwards.
        """
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as client:
            received = b""
            try:
                for part in parts:
                    client.sendall(part)
                    time.sleep(pause)
                if shut:
                    client.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # the server has stopped reading, but may have answered
            try:
                while chunk := client.recv(1 << 16):
                    received += chunk
                    if _whole(received):
                        break
            except TimeoutError:
                return RawAnswer(-1, received)
            except OSError:
                pass
        received = received.removeprefix(CONTINUE)
        match = re.match(rb"HTTP/1\.[01] (\d+)", received)
        return RawAnswer(int(match[1]) if match else 0, received.partition(b"\r\n\r\n")[2])

    def ask(self, body: bytes, kind: str = f"multipart/form-data; boundary={BOUNDARY}", **how: object) -> RawAnswer:
        """Send a POST to /predict."""
        return self.send(post(body, kind), **how)  # pyright: ignore

    def good_answer(self) -> bytes:
        """Return the predictions for a well-formed request."""
        answer = self.ask(form(*(("classes", name) for name in NAMES)))
        assert answer.status == 200, answer
        [result] = json.loads(answer.body)["results"]
        return json.dumps(result["heads"]["exact"]["predictions"]).encode()


GOOD = hostile_files.image("PNG")


def _whole(received: bytes) -> bool:
    head, separator, body = received.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(separator and length and len(body) >= int(length[1]))


def post(body: bytes, kind: str, path: str = "/predict", **headers: str) -> bytes:
    lines = {"Host": "x", "Content-Type": kind, "Content-Length": str(len(body)), **headers}
    return f"POST {path} HTTP/1.1\r\n".encode() + _lines(lines) + b"\r\n" + body


def _lines(headers: dict[str, str]) -> bytes:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items()).encode("latin-1", "replace")


def form(*fields: tuple[str, str | bytes], image: bytes | None = GOOD, name: str = "a.png") -> bytes:
    parts = [f'Content-Disposition: form-data; name="{key}"\r\n\r\n'.encode() + _bytes(value) for key, value in fields]
    if image is not None:
        head = f'Content-Disposition: form-data; name="images"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
        parts.append(head.encode("utf-8", "surrogateescape") + image)
    return b"".join(f"--{BOUNDARY}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{BOUNDARY}--\r\n".encode()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


Case = tuple[str, Callable[[RawClient], RawAnswer]]


def forms() -> Iterator[Case]:
    """Yield malformed multipart bodies, and bodies that are not forms."""
    whole = form(("classes", "cat"), ("classes", "dog"))
    kinds = {
        "no boundary": "multipart/form-data",
        "an empty boundary": "multipart/form-data; boundary=",
        "another boundary": "multipart/form-data; boundary=other",
        "a long boundary": "multipart/form-data; boundary=" + "x" * 60_000,
        "a boundary of signs": 'multipart/form-data; boundary="\\"; x"',
        "two boundaries": f"multipart/form-data; boundary=x; boundary={BOUNDARY}",
        "mixed": f"multipart/mixed; boundary={BOUNDARY}",
        "urlencoded": "application/x-www-form-urlencoded",
        "json": "application/json",
        "nothing": "",
        "commas": f"multipart/form-data, multipart/form-data; boundary={BOUNDARY}",
        "capitals": f"MULTIPART/FORM-DATA; BOUNDARY={BOUNDARY}",
        "xml": "application/xml",
    }
    for name, kind in kinds.items():
        yield name, lambda server, kind=kind: server.ask(whole, kind)
    for charset in ("utf-16", "utf-7", "unicode_escape", "raw_unicode_escape", "idna", "punycode", "undefined",
                    "zlib", "rot13", "mbcs", "latin-1",
                    "../../x", "x" * 5000, "utf-8\x00", "utf_8_sig", "base64"):  # fmt: skip
        body = form(("classes", "\\ud800+2AA-"), ("classes", b"+2AA-\xff\xfe\x00\xd8"))
        kind = f"multipart/form-data; boundary={BOUNDARY}; charset={charset}"
        yield f"charset {charset[:20]}", lambda server, kind=kind, body=body: server.ask(body, kind)
    disposition = b"Content-Disposition: form-data; "
    heads = {
        "no name": disposition,
        "an empty name": disposition + b'name=""',
        "a name without end": disposition + b'name="images',
        "no disposition": b"X: y",
        "no head": b"",
        "a name twice": disposition + b'name="images"; name="classes"; filename="a"',
        "a name by charset": disposition + b"name*=utf-8''images; filename*=utf-16''%ff%fe",
        "parts of a name": disposition + b'name*0="pic"; name*1="tures"; filename*0*=x',
        "a file name that leads out": disposition + b'name="images"; filename="../../../etc/passwd"',
        "a file name of zeros": disposition + b'name="images"; filename="\0\0"',
        "a file name of bytes": disposition + b'name="images"; filename="\xff\xfe\xed\xa0\x80"',
        "a file name of escapes": disposition + b'name="images"; filename="\x1b[31m<script>"',
        "a long file name": disposition + b'name="images"; filename="' + b"x" * 100_000 + b'"',
        "a long head": disposition + b'name="classes"\r\nX: ' + b"y" * 1_000_000,
        "many heads": disposition + b'name="classes"\r\n' + b"X: y\r\n" * 20_000 + b"Z: z",
        "a head of no ASCII": disposition + "name=\"images\"; filename=\"日本.png\"\r\nX: ü".encode(),
        "a folded head": disposition + b'\r\n name="images";\r\n filename="a"',
        "a base64 part": disposition + b'name="images"; filename="a"\r\nContent-Transfer-Encoding: base64',
        "a length in a part": disposition + b'name="images"; filename="a"\r\nContent-Length: 999999',
        "a form in a form": disposition + b'name="images"; filename="a"\r\nContent-Type: multipart/mixed; boundary=x',
    }  # fmt: skip
    for name, head in heads.items():
        body = f"--{BOUNDARY}\r\n".encode() + head + b"\r\n\r\n" + GOOD + f"\r\n--{BOUNDARY}--\r\n".encode()
        yield name, lambda server, body=body: server.ask(body)
    bodies = {
        "nothing": b"",
        "the end alone": f"--{BOUNDARY}--\r\n".encode(),
        "no end": whole[: -len(BOUNDARY) - 6],
        "half": whole[: len(whole) // 2],
        "line ends of one kind": whole.replace(b"\r\n", b"\n"),
        "text before": b"hello\r\n" + whole,
        "text after": whole + b"hello",
        "twice": whole + whole,
        "zeros": bytes(10_000),
        "deep JSON": b"[" * 100_000,
        "JSON objects": b'{"a":' * 100_000,
        "NaN": b'{"top_k": NaN, "images": Infinity}',
        "XML entities": b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
        "boundaries alone": f"--{BOUNDARY}\r\n".encode() * 5000,
    }
    for name, body in bodies.items():
        for kind in (f"multipart/form-data; boundary={BOUNDARY}", "application/json"):
            yield f"{name}, {kind[:9]}", lambda server, body=body, kind=kind: server.ask(body, kind)
    draw = random.Random(SEED)
    for i in range(40):
        bad = bytearray(whole)
        for _ in range(draw.randint(1, 12)):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        yield f"changed {i}", lambda server, bad=bytes(bad): server.ask(bad)


def values() -> Iterator[Case]:
    """Yield well-formed forms with invalid fields."""
    for value in ("0", "-1", "1e3", "NaN", "Infinity", "", " 5", "5 ", "٣", "²", "9" * 9, "9" * 10_000, "0x10", "1_0",
                  "null",                  "5\0", "[1]", "True"):  # fmt: skip
        yield f"top_k {value[:10]!r}", lambda server, value=value: server.ask(form(("top_k", value)))
    yield "top_k twice", lambda server: server.ask(form(("top_k", "1"), ("top_k", "2")))
    for value in ("none", "", "exact\0", "EXACT", "../exact", "<script>", "exact,zeroshot", "x" * 5000):
        yield f"heads {value[:10]!r}", lambda server, value=value: server.ask(form(("heads", value)))
    names = [
        "", " ", "\0", "a\0b", "\x1b[31mred", "\x07", "a\nb", "a\r\nSet-Cookie: x=y", "\ud800", "‮gpj.exe", "​", "́" * 100,
        "<img src=x onerror=alert(1)>", "'; DROP TABLE classes; --", "{}", "{0.__class__}", "%s%n", "${7*7}", "{{7*7}}",
        "<|endoftext|>", "<|startoftext|>", "a" * 200, "a" * 201, "a b " * 50,
        "😀" * 30, "👨‍👩‍👧‍👦", "\ufeffa", "../../etc/passwd",
        "a\x85b", "\x9b31m", "\u2028", "ﷺ" * 20, "Z̤͔a̘l̡g̨o͢", b"\xff\xfe", b"\xed\xa0\x80", b"\xc0\xaf",
    ]  # fmt: skip
    for name in names:
        body = form(("classes", name), ("classes", "dog"))
        yield f"name {str(name)[:12]!r}", lambda server, body=body: server.ask(body)
        both = form(("classes", name), ("classes", "dog"), ("heads", "zeroshot"), ("heads", "first-order"))
        yield f"name {str(name)[:12]!r}, all heads", lambda server, both=both: server.ask(both)
    yield "a name twice", lambda server: server.ask(form(("classes", "a"), ("classes", "a")))
    yield "a field of another name", lambda server: server.ask(form(("__proto__", "x")))
    yield "images as text", lambda server: server.ask(form(("images", "x"), image=None))
    yield "no images", lambda server: server.ask(form(("classes", "x"), image=None))


def uploads(work: Path) -> Iterator[Case]:
    """Yield uploads of bad images, unusual images and pickles with code."""
    marker = work / "executed-by-upload"
    for name, content in (hostile_files.bad_images(marker) | hostile_files.good_images()).items():
        if not callable(content):
            yield name, lambda server, content=content, name=name: server.ask(form(image=content, name=name))
    for name, content in hostile_files.files_with_code(marker, {}):
        yield f"code: {name}", lambda server, content=content: server.ask(form(image=content))
    yield "no code was executed", lambda server: RawAnswer(500 if marker.exists() else 200)


def wire() -> Iterator[Case]:
    """Yield bytes that are not HTTP, and requests with false lengths or malformed headers."""
    body = form(("classes", "cat"), ("classes", "dog"))
    kind = f"multipart/form-data; boundary={BOUNDARY}"
    for length in (
        "0",
        "1",
        "-1",
        "+5",
        "1e3",
        "0x10",
        "99999999999",
        "9" * 5000,
        "abc",
        "",
        "5, 6",
        "\uff11\uff12",
        " 10 ",
    ):
        head = post(b"", kind).replace(b"Content-Length: 0", f"Content-Length: {length}".encode())
        yield f"length {length[:12]}", lambda server, head=head: server.send(head + body, shut=True)
    two = post(body, kind).replace(b"\r\n\r\n", b"\r\nContent-Length: 5\r\n\r\n", 1)
    yield "two lengths", lambda server: server.send(two)
    chunked = post(b"", kind).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    chunks = {
        "whole": b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        "no end": b"%x\r\n%s\r\n" % (len(body), body),
        "a size of letters": b"zz\r\nabc\r\n0\r\n\r\n",
        "a size below 0": b"-5\r\nabc\r\n0\r\n\r\n",
        "a huge size": b"f" * 20 + b"\r\nabc\r\n0\r\n\r\n",
        "many zeros": b"0" * 5000 + b"3\r\nabc\r\n0\r\n\r\n",
        "an extension": b"3;" + b"x" * 70_000 + b"\r\nabc\r\n0\r\n\r\n",
        "trailers": b"0\r\n" + b"X: y\r\n" * 5000 + b"\r\n",
        "a byte each": b"".join(b"1\r\n%c\r\n" % c for c in body[:2000]) + b"0\r\n\r\n",
        "none": b"",
    }
    for name, content in chunks.items():
        yield f"chunks: {name}", lambda server, content=content: server.send(chunked + content, shut=True)
    both = (
        chunked.replace(b"\r\n\r\n", b"\r\nContent-Length: 4\r\n\r\n", 1)
        + b"0\r\n\r\nGET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    yield "chunks and a length", lambda server: server.send(both)
    yield (
        "chunks by another name",
        lambda server: server.send(chunked.replace(b"chunked", b"xchunked") + body, shut=True),
    )
    yield "gzip", lambda server: server.send(chunked.replace(b"chunked", b"gzip, chunked") + chunks["whole"])
    get, script = b"GET /classes HTTP/1.1\r\n", b"GET /page/page.js HTTP/1.1\r\n"
    lines = {
        "no host": get + b"\r\n",
        "two hosts": get + b"Host: x\r\nHost: y\r\n\r\n",
        "a host of signs": get + b"Host: <script>@/\\\r\n\r\n",
        "a long head": get + b"Host: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        "many heads": get + b"Host: x\r\n" + b"X: y\r\n" * 30_000 + b"\r\n",
        "a head of bytes": get + b"Host: x\r\nX: \xff\xfe\x00\r\n\r\n",
        "a head of zeros": get + b"Host: x\r\n\0: \0\r\n\r\n",
        "a head without colon": get + b"Host: x\r\nnothing\r\n\r\n",
        "a folded head": get + b"Host: x\r\nX: a\r\n b\r\n\r\n",
        "blanks before a colon": get + b"Host: x\r\nX : a\r\n\r\n",
        "line ends of one kind": get.replace(b"\r", b"") + b"Host: x\n\n",
        "a long path": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "a long query": b"GET /classes?" + b"a=b&" * 15_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        "HTTP/0.9": b"GET /classes\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "HTTP/9": b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        "zeros": bytes(5000),
        "random": random.Random(SEED).randbytes(5000),
        "an absolute path": b"GET http://elsewhere/classes HTTP/1.1\r\nHost: x\r\n\r\n",
        "CONNECT": b"CONNECT elsewhere:443 HTTP/1.1\r\nHost: elsewhere\r\n\r\n",
        "an asterisk": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        "no such method": b"G\xc3T / HTTP/1.1\r\nHost: x\r\n\r\n",
        "a long method": b"A" * 70_000 + b" / HTTP/1.1\r\nHost: x\r\n\r\n",
        "an upgrade": get + b"Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n"
        b"Sec-WebSocket-Version: 13\r\n\r\n",
        "expect": post(body, kind, Expect="100-continue", Connection="close"),
        "expect nonsense": post(body, kind, Expect="nonsense"),
        "a range": script + b"Host: x\r\nRange: bytes=" + b"0-1," * 1000 + b"5-\r\n\r\n",
        "a range turned round": script + b"Host: x\r\nRange: bytes=9-1\r\n\r\n",
        "a date": script + b"Host: x\r\nIf-Modified-Since: yesterday\r\n\r\n",
        "a key of bytes": get + b"Host: x\r\nX-API-Key: \xff\xfe\r\nAuthorization: Bearer \xff\r\n\r\n",
        "many at once": (get + b"Host: x\r\n\r\n") * 200,
    }  # fmt: skip
    for name, content in lines.items():
        yield name, lambda server, content=content: server.send(content, shut=True)


def paths() -> Iterator[Case]:
    """Yield paths that lead out of the folder of the page, and requests with other HTTP methods."""
    ups = (
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..%252f",
        "..\\",
        "..%5c",
        "....//",
        "%c0%ae%c0%ae/",
        "..;/",
        ".%00./",
    )
    for up in ups:
        for start in ("/page/", "/samples/", "/"):
            for goal in ("app.py", "etc/passwd"):
                path = f"{start}{up * (1 if goal == 'app.py' else 12)}{goal}"
                yield path[:50], lambda server, path=path: _get(server, path)
    for path in ("/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/C:%5cWindows%5cwin.ini", "/page/file:///etc/passwd",
                 "/page/.", "/page/", "/page", "/page/%00", "/page/page.js%00.png", "/page/" + "a/" * 5000, "/page/con",
                 "//etc/passwd", "/samples/0/../../classes", "/samples/%30", "/samples/-1", "/samples/1e1",
                 "/samples/\uff11",
                 "/samples/" + "9" * 5000, "/samples/0%00", "/openapi.json/../metrics", "/docs", "/redoc",
                 "/.git/config",
                 "/config.json", "/learned.safetensors", "/%", "/%zz", "/\xff"):  # fmt: skip
        yield path[:50], lambda server, path=path: _get(server, path)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "POST", "PROPFIND"):
        for path in ("/", "/classes", "/predict", "/page/page.js", "/nowhere"):
            line = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
            yield f"{method} {path}", lambda server, line=line: server.send(line, shut=True)


def _get(server: RawClient, path: str) -> RawAnswer:
    """Request a path; turn the answer into a 500 if it contains a system file or our source."""
    answer = server.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1", "replace"), shut=True)
    leaked = b"root:" in answer.body or b"from __future__" in answer.body
    return RawAnswer(500, b"a file: " + answer.body[:50]) if leaked else answer


def masses() -> Iterator[Case]:
    """Yield requests with too many names, images, heads or bytes."""
    yield "1001 names", lambda server: server.ask(form(*(("classes", f"n{i}") for i in range(1001))))
    yield "50,000 names", lambda server: server.ask(form(*(("classes", f"n{i}") for i in range(50_000))))
    yield "a name of 10 MB", lambda server: server.ask(form(("classes", "x" * 10_000_000)))
    part = form(image=b"x")[: -len(BOUNDARY) - 6]
    yield "33 images", lambda server: server.ask(part * 33 + f"--{BOUNDARY}--\r\n".encode())
    yield "20,000 images", lambda server: server.ask(part * 20_000 + f"--{BOUNDARY}--\r\n".encode())
    yield "40 MB, announced", lambda server: server.ask(form(image=bytes(40_000_000)))
    chunked = post(b"", f"multipart/form-data; boundary={BOUNDARY}").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    head = form(image=b"")[: -len(BOUNDARY) - 8]
    begin = chunked + b"%x\r\n%s\r\n" % (len(head), head)
    yield "40 MB, not announced", lambda server: server.send(begin, *[chunk] * 40)
    yield "30 MB of a file", lambda server: server.ask(form(image=bytes(30_000_000)))
    yield (
        "200 names of 200 signs",
        lambda server: server.ask(form(*(("classes", f"{i:03}" + "w" * 197) for i in range(200)))),
    )
    yield "1000 heads asked for", lambda server: server.ask(form(*(("heads", "exact") for _ in range(1000))))
