"""Requests that no client should send, to a process of `gopro serve` over its socket: broken forms and headers, lies
about lengths, slow and vanishing clients, paths that lead out, images that are none; and what schemathesis makes of
its own description. None may be answered with a 5.. (but "come again"), a traceback or a file; afterwards it answers as
before."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tools.torture import hostile
from tools.torture.fuzz import fuzz
from tools.torture.rows import Row

SEED = 11
EXAMPLES = 150
"""Requests of schemathesis for each operation and mode."""
GROWTH = 100
"""MiB that a server may take for what it was asked before: its threads and caches come with the first requests."""

NAMES = ("chess pawn", "soccer ball", "trophy")
B = "----edge"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """What came back; status 0: the connection was closed without an answer, -1: nothing came."""

    status: int
    body: bytes = b""

    @property
    def held(self) -> bool:
        """Whether it is no failure of the server's, and tells nothing of its inside."""
        refused = 200 <= self.status < 500 or self.status in (0, 503)
        return refused and not any(told in self.body for told in (b"Traceback", b"root:", b"site-packages"))


class Client:
    """Of a server at `url`."""

    def __init__(self, url: str):
        self.url, self.port = url, int(url.rpartition(":")[2])

    def send(self, *parts: bytes, pause: float = 0.0, seconds: float = 30.0, shut: bool = False) -> Answer:
        """Bytes as they are; what is answered."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as client:
            received = b""
            try:
                for part in parts:
                    client.sendall(part)
                    time.sleep(pause)
                if shut:
                    client.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # it has heard enough: what does it say?
            try:
                while chunk := client.recv(1 << 16):
                    received += chunk
                    if _whole(received):
                        break
            except TimeoutError:
                return Answer(-1, received)
            except OSError:
                pass
        received = received.removeprefix(CONTINUE)
        match = re.match(rb"HTTP/1\.[01] (\d+)", received)
        return Answer(int(match[1]) if match else 0, received.partition(b"\r\n\r\n")[2])

    def ask(self, body: bytes, kind: str = f"multipart/form-data; boundary={B}", **how: object) -> Answer:
        """A POST to /predict."""
        return self.send(post(body, kind), **how)  # pyright: ignore

    def right(self) -> bytes:
        """Its answer to a good question, without the times."""
        answer = self.ask(form(*(("classes", name) for name in NAMES)))
        assert answer.status == 200, answer
        [result] = json.loads(answer.body)["results"]
        return json.dumps(result["heads"]["exact"]["predictions"]).encode()


class Server(Client):
    """A process of `gopro serve`."""

    def __init__(self, run: Path, work: Path, *more: str):
        root = Path(__file__).resolve().parents[2]
        self.log = work / "serve.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gopro.cli", "serve", str(run), "--port", "0", "--device", "cpu", *more],
                cwd=work,
                env={
                    **os.environ,
                    "PYTHONPATH": str(root / "src"),
                    "GOPRO_CACHE": str(work / "cache"),
                    "COLUMNS": "200",
                },
                stdout=log,
                stderr=log,
            )
        ends = time.monotonic() + 180
        while not (found := re.search(r"http://127.0.0.1:(\d+)", self.log.read_text())):
            assert self.process.poll() is None and time.monotonic() < ends, self.log.read_text()
            time.sleep(0.1)
        super().__init__(found[0])

    def memory(self) -> int:
        """MiB that it takes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s*(\d+)", status)[1]) >> 10  # pyright: ignore

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


GOOD = hostile.image("PNG")


def _whole(received: bytes) -> bool:
    head, there, body = received.removeprefix(CONTINUE).partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head.lower())
    return bool(there and length and len(body) >= int(length[1]))


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
    return b"".join(f"--{B}\r\n".encode() + part + b"\r\n" for part in parts) + f"--{B}--\r\n".encode()


def _bytes(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


Case = tuple[str, Callable[[Client], Answer]]


def run(work: Path, times: int | None) -> Iterator[Row]:
    """See the module."""
    from tools.torture.files import Trials, trained

    trials = Trials(work, None)
    folder = trained(trials)
    trials.commands.close()
    with serving(folder, work) as server:
        right, before = server.right(), server.memory()
        yield from by_kind(server, work, times, right)
        yield slow(server, times, right)
        yield vanishing(server, times, right)
        count = EXAMPLES if times is None else times
        fuzzed = fuzz(server.url, count, SEED)
        same = server.right() == right
        asked = fuzzed.statuses.total()
        seen = ", ".join(f"{n} x {status}" for status, n in sorted(fuzzed.statuses.items()))
        note = "; ".join([seen, *fuzzed.faults, *([] if same else ["the right answer changed"])])
        yield Row("schemathesis, from its own description", asked, asked if same and not fuzzed.faults else 0, note)
        after = server.memory()
        again = all(row.held == row.tried for row in by_kind(server, work, times, right))
        later, log = server.memory(), server.log.read_text()
        alive = server.process.poll() is None and "Traceback" not in log
        yield Row(
            "the server afterwards: alive, no traceback in its log, no more memory for the same once more",
            1,
            int(alive and again and later < after + GROWTH),
            f"{before} MiB, then {after} MiB, then {later} MiB",
        )


def by_kind(server: Client, work: Path, times: int | None, right: bytes) -> Iterator[Row]:
    """What is asked case by case."""
    groups = {
        "forms that are broken": forms(),
        "values that make no sense, and class names of all kinds": values(),
        "files that are no images, and unusual ones": files(work),
        "lies about lengths, headers that are none, bytes that are no HTTP": wire(),
        "paths that lead out, and other methods": paths(),
        "too much of everything": masses(),
    }
    for what, cases in groups.items():
        yield tried(server, what, cases, times, right)


@contextmanager
def serving(folder: Path, work: Path, *more: str) -> Iterator[Server]:
    server = Server(folder, work, "--upload-seconds", "3", *more)
    try:
        yield server
    finally:
        server.stop()


def tried(server: Client, what: str, cases: Iterator[Case], times: int | None, right: bytes) -> Row:
    listed = list(cases)
    listed = listed if times is None else listed[:: -(-len(listed) // times)]
    statuses, faults = Counter[int](), []
    for name, case in listed:
        answer = case(server)
        statuses[answer.status] += 1
        if not answer.held:
            faults.append(f"{name}: {answer.status} {answer.body[-200:]!r}")
    if server.right() != right:
        faults.append("the right answer changed")
    return Row(what, len(listed), len(listed) - len(faults), "; ".join([_counts(statuses), *faults]))


def _counts(statuses: Counter[int]) -> str:
    words = {0: "closed", -1: "no answer"}
    return ", ".join(f"{count} x {words.get(status, status)}" for status, count in sorted(statuses.items()))


def forms() -> Iterator[Case]:
    """Multipart bodies as no client writes them, and bodies that are no forms."""
    whole = form(("classes", "cat"))
    kinds = {
        "no boundary": "multipart/form-data",
        "an empty boundary": "multipart/form-data; boundary=",
        "another boundary": "multipart/form-data; boundary=other",
        "a long boundary": "multipart/form-data; boundary=" + "x" * 60_000,
        "a boundary of signs": 'multipart/form-data; boundary="\\"; x"',
        "two boundaries": f"multipart/form-data; boundary=x; boundary={B}",
        "mixed": f"multipart/mixed; boundary={B}",
        "urlencoded": "application/x-www-form-urlencoded",
        "json": "application/json",
        "nothing": "",
        "commas": f"multipart/form-data, multipart/form-data; boundary={B}",
        "capitals": f"MULTIPART/FORM-DATA; BOUNDARY={B}",
        "xml": "application/xml",
    }
    for name, kind in kinds.items():
        yield name, lambda server, kind=kind: server.ask(whole, kind)
    for charset in ("utf-16", "utf-7", "unicode_escape", "raw_unicode_escape", "idna", "punycode", "undefined",
                    "zlib", "rot13", "mbcs", "latin-1",
                    "../../x", "x" * 5000, "utf-8\x00", "utf_8_sig", "base64"):  # fmt: skip
        body = form(("classes", "\\ud800+2AA-"), ("classes", b"+2AA-\xff\xfe\x00\xd8"))
        kind = f"multipart/form-data; boundary={B}; charset={charset}"
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
        body = f"--{B}\r\n".encode() + head + b"\r\n\r\n" + GOOD + f"\r\n--{B}--\r\n".encode()
        yield name, lambda server, body=body: server.ask(body)
    bodies = {
        "nothing": b"",
        "the end alone": f"--{B}--\r\n".encode(),
        "no end": whole[: -len(B) - 6],
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
        "boundaries alone": f"--{B}\r\n".encode() * 5000,
    }
    for name, body in bodies.items():
        for kind in (f"multipart/form-data; boundary={B}", "application/json"):
            yield f"{name}, {kind[:9]}", lambda server, body=body, kind=kind: server.ask(body, kind)
    draw = random.Random(SEED)
    for i in range(40):
        bad = bytearray(whole)
        for _ in range(draw.randint(1, 12)):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        yield f"changed {i}", lambda server, bad=bytes(bad): server.ask(bad)


def values() -> Iterator[Case]:
    """Fields that are well-formed, and wrong."""
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


def files(work: Path) -> Iterator[Case]:
    """Uploads of all kinds."""
    mark = work / "executed-by-upload"
    for name, content in (hostile.bad_images(mark) | hostile.good_images()).items():
        if not callable(content):
            yield name, lambda server, content=content, name=name: server.ask(form(image=content, name=name))
    for name, content in hostile.coded(mark, {}):
        yield f"code: {name}", lambda server, content=content: server.ask(form(image=content))
    yield "was anything executed", lambda server: Answer(500 if mark.exists() else 200)


def wire() -> Iterator[Case]:
    """What is no HTTP, or lies."""
    body = form(("classes", "cat"))
    kind = f"multipart/form-data; boundary={B}"
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
    """Ways out of the folder of the page, and other methods."""
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
                yield path[:50], lambda server, path=path: _served(server, path)
    for path in ("/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/C:%5cWindows%5cwin.ini", "/page/file:///etc/passwd",
                 "/page/.", "/page/", "/page", "/page/%00", "/page/page.js%00.png", "/page/" + "a/" * 5000, "/page/con",
                 "//etc/passwd", "/samples/0/../../classes", "/samples/%30", "/samples/-1", "/samples/1e1",
                 "/samples/\uff11",
                 "/samples/" + "9" * 5000, "/samples/0%00", "/openapi.json/../metrics", "/docs", "/redoc",
                 "/.git/config",
                 "/config.json", "/learned.safetensors", "/%", "/%zz", "/\xff"):  # fmt: skip
        yield path[:50], lambda server, path=path: _served(server, path)
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "POST", "PROPFIND"):
        for path in ("/", "/classes", "/predict", "/page/page.js", "/nowhere"):
            line = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
            yield f"{method} {path}", lambda server, line=line: server.send(line, shut=True)


def _served(server: Client, path: str) -> Answer:
    """What a path gives; a file of the machine's or of our own source is a fault."""
    answer = server.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1", "replace"), shut=True)
    told = b"root:" in answer.body or b"from __future__" in answer.body
    return Answer(500, b"a file: " + answer.body[:50]) if told else answer


def masses() -> Iterator[Case]:
    """More of everything than anybody needs."""
    yield "1001 names", lambda server: server.ask(form(*(("classes", f"n{i}") for i in range(1001))))
    yield "50,000 names", lambda server: server.ask(form(*(("classes", f"n{i}") for i in range(50_000))))
    yield "a name of 10 MB", lambda server: server.ask(form(("classes", "x" * 10_000_000)))
    part = form(image=b"x")[: -len(B) - 6]
    yield "33 images", lambda server: server.ask(part * 33 + f"--{B}--\r\n".encode())
    yield "20,000 images", lambda server: server.ask(part * 20_000 + f"--{B}--\r\n".encode())
    yield "40 MB, announced", lambda server: server.ask(form(image=bytes(40_000_000)))
    chunked = post(b"", f"multipart/form-data; boundary={B}").replace(
        b"Content-Length: 0", b"Transfer-Encoding: chunked"
    )
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    head = form(image=b"")[: -len(B) - 8]
    begin = chunked + b"%x\r\n%s\r\n" % (len(head), head)
    yield "40 MB, not announced", lambda server: server.send(begin, *[chunk] * 40)
    yield "30 MB of a file", lambda server: server.ask(form(image=bytes(30_000_000)))
    yield (
        "200 names of 200 signs",
        lambda server: server.ask(form(*(("classes", f"{i:03}" + "w" * 197) for i in range(200)))),
    )
    yield "1000 heads asked for", lambda server: server.ask(form(*(("heads", "exact") for _ in range(1000))))


def slow(server: Client, times: int | None, right: bytes) -> Row:
    """Clients that send a byte now and then, while another asks."""
    count, answers = times or 40, []
    whole = post(form(("classes", "cat")), f"multipart/form-data; boundary={B}")

    def drip(i: int) -> None:
        at = 20 + (len(whole) - 40) * i // count
        answers.append(server.send(whole[:at], *(whole[k : k + 1] for k in range(at, at + 12)), pause=0.4, seconds=15))

    threads = [threading.Thread(target=drip, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    begun, same = time.monotonic(), server.right() == right
    took = time.monotonic() - begun
    for thread in threads:
        thread.join()
    held = [a for a in answers if a.held]  # of those that are too slow within the head the connection is closed
    note = f"{_counts(Counter(a.status for a in answers))}; a good request meanwhile took {took:.1f} s"
    return Row("clients that send a byte every 0.4 s, together", count, len(held) if same else 0, note)


def vanishing(server: Client, times: int | None, right: bytes) -> Row:
    """Clients that go away at a random moment."""
    count, draw = times or 60, random.Random(SEED)
    whole = post(form(*(("classes", f"n{i}") for i in range(50))), f"multipart/form-data; boundary={B}")
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", server.port), timeout=10) as client:
            client.sendall(whole[: draw.randint(1, len(whole))])
            time.sleep(draw.random() * 0.05)
            if draw.random() < 0.5:  # with a reset
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    same = server.right() == right
    return Row("clients that go away at a random moment", count, count if same else 0, "" if same else "a wrong answer")
