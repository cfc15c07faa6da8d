"""A web server on 127.0.0.1 that misbehaves on request, and the thread that any test server runs in."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Request:
    """A request that the server received."""

    path: str
    range: str | None
    if_range: str | None


class Site:
    """The files of a server and its faults: each request for a path takes the next of `faults[path]`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.headers: dict[str, str] = {}
        """Headers sent with every file instead of its ETag."""
        self.takes_ranges = True
        self.chunked = False
        self.delay = 0.0
        """Seconds to wait before each 64 KiB."""
        self.faults: defaultdict[str, deque[Callable[[Handler], None] | int]] = defaultdict(deque)
        """A fault is a function that answers the request, or the number of bytes after which to cut the connection."""
        self.requests: list[Request] = []
        self.address = ""

    def url(self, path: str) -> str:
        return self.address + path

    def add_hub_repository(self, repository: str, files: dict[str, bytes]) -> None:
        """Add a model repository with the addresses that the Hugging Face Hub gives it.

        Files are redirected to another address, as the Hub does for large ones.
        """
        sha = "0123456789abcdef0123456789abcdef01234567"
        siblings: list[dict[str, Any]] = []
        for name, content in files.items():
            digest = hashlib.sha256(content).hexdigest()
            lfs = {"sha256": digest, "size": len(content), "pointerSize": 134}
            siblings.append({"rfilename": name, "size": len(content), "blobId": digest[:40], "lfs": lfs})
            self.redirects[f"/{repository}/resolve/{sha}/{name}"] = self.url(f"/cdn/{name}")
            self.files[f"/cdn/{name}"] = content
        listing = {"id": repository, "modelId": repository, "sha": sha, "siblings": siblings, "tags": []}
        self.files[f"/api/models/{repository}"] = json.dumps(listing).encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    site: Site

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        site = self.site
        site.requests.append(Request(path, self.headers.get("Range"), self.headers.get("If-Range")))
        fault = site.faults[path].popleft() if site.faults[path] else None
        if callable(fault):
            fault(self)
        elif path in site.redirects:
            self.answer(302, {"Location": site.redirects[path]})
        elif path in site.files:
            self.send_file(site.files[path], len(site.files[path]) if fault is None else fault)
        else:
            self.answer(404)

    def answer(self, code: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def send_file(self, content: bytes, upto: int) -> None:
        """Send the file or the requested range of it, cut after `upto` bytes of the file."""
        site = self.site
        identity = site.headers or {"ETag": f'"{hashlib.md5(content).hexdigest()}"'}
        start, status = 0, 200
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if requested and site.takes_ranges and self.headers.get("If-Range") in (None, *identity.values()):
            start, status = int(requested[1]), 206
        if start >= len(content) and status == 206:
            return self.answer(416, {"Content-Range": f"bytes */{len(content)}", **identity})
        self.send_response(status)
        for name, value in {"Content-Type": "application/octet-stream", **identity}.items():
            self.send_header(name, value)
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if site.chunked:
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        with suppress(ConnectionError):
            for i in range(start, min(upto, len(content)), 1 << 16):
                piece = content[i : min(i + (1 << 16), upto)]
                time.sleep(site.delay)
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if site.chunked else piece)
            if site.chunked and upto >= len(content):
                self.wfile.write(b"0\r\n\r\n")
        if upto < len(content):
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def run_http_server(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a free port while the block runs, and return the server's address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serving() -> Iterator[Site]:
    """Serve a site on a free port while the block runs."""
    site = Site()
    with run_http_server(type("SiteHandler", (Handler,), {"site": site})) as site.address:
        yield site
