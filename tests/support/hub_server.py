"""A stand-in for the Hugging Face Hub on 127.0.0.1.

It implements the endpoints that the client uses to create repositories, commit to them and download from them, with
tokens, private repositories, branches, and a separate store for large files.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote, urlsplit

import yaml

from tests.support.web_server import run_http_server

Files = dict[str, bytes]


@dataclass
class Repository:
    """A repository; `branches` maps names to commits, and `commits` maps each commit to all its files."""

    private: bool
    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, branch: str, files: Files) -> str:
        listed = sorted((path, hashlib.sha256(content).hexdigest()) for path, content in files.items())
        sha = hashlib.sha1(json.dumps([len(self.commits), listed]).encode()).hexdigest()
        self.commits[sha] = files
        self.branches[branch] = sha
        return sha

    def sha(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


class Hub:
    """The state of the Hub.

    Attributes:
        tokens: owners whose repositories each token may read and write.
        large: pattern of the files kept in the store of large files.
        requests: received requests, as `METHOD path`.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens: dict[str, set[str]] = {}
        self.large = "*.safetensors"
        self.store: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.address = ""

    def files(self, repository: str, revision: str = "main") -> Files:
        branches = self.repositories[repository].branches
        return self.repositories[repository].commits[branches[revision]]

    def put(self, repository: str, files: Files, *, private: bool = False) -> None:
        """Create a repository with these files."""
        self.repositories[repository] = Repository(private)
        self.repositories[repository].commit("main", files)


class ErrorResponse(Exception):
    """A response with an error status, raised by the handler of a route."""

    def __init__(self, status: int, code: str = "", body: Any = None):
        super().__init__(status, code)
        self.status, self.code, self.body = status, code, body


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def do_GET(self) -> None:
        self.handle_with({r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?": self.info,
                          r"/api/models/([^/]+/[^/]+)/tree/([^/]+)": self.tree,
                          r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)": self.resolve})  # fmt: skip

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self.handle_with({r"/api/repos/create": self.create,
                          r"/api/validate-yaml": self.validate,
                          r"/api/models/([^/]+/[^/]+)/branch/(.+)": self.branch,
                          r"/api/models/([^/]+/[^/]+)/preupload/(.+)": self.preupload,
                          r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch": self.batch,
                          r"/api/models/([^/]+/[^/]+)/commit/(.+)": self.commit})  # fmt: skip

    def do_PUT(self) -> None:
        self.handle_with({r"/store/(\w+)": self.store})

    def handle_with(self, routes: dict[str, Any]) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            self.body = b"".join(iter(self.chunk, b""))
        else:
            self.body = self.rfile.read(length)
        try:
            for route, answer in routes.items():
                if match := re.fullmatch(route, path):
                    answer(*match.groups())
                    return
            raise ErrorResponse(404)
        except ErrorResponse as error:
            headers = {"X-Error-Code": error.code} if error.code else {}
            self.answer(json.dumps(error.body or {}).encode(), headers, error.status)

    def chunk(self) -> bytes:
        size = int(self.rfile.readline(), 16)
        content = self.rfile.read(size)
        self.rfile.readline()
        return content

    def answer(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def json(self, content: Any) -> None:
        self.answer(json.dumps(content).encode(), {"Content-Type": "application/json"})

    def owned(self) -> set[str] | None:
        """Return the owners that the request's token gives access to; None without a token."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        return self.hub.tokens.get(token)

    def check_write_access(self, owner: str) -> None:
        owned = self.owned()
        if owned is None:
            raise ErrorResponse(401)
        if owner not in owned:
            raise ErrorResponse(403)

    def repository(self, name: str) -> Repository:
        """Return a repository. A private one does not exist for strangers, as on the Hub."""
        repository, owned = self.hub.repositories.get(name), self.owned()
        if repository is None or (repository.private and name.partition("/")[0] not in (owned or ())):
            raise ErrorResponse(401 if owned is None else 404, "RepoNotFound")
        return repository

    def at(self, name: str, revision: str) -> tuple[str, Files]:
        repository = self.repository(name)
        sha = repository.sha(revision)
        if sha is None:
            raise ErrorResponse(404, "RevisionNotFound")
        return sha, repository.commits[sha]

    def info(self, name: str, revision: str | None) -> None:
        sha, files = self.at(name, revision or "main")
        siblings = [{"rfilename": path} for path in files]
        self.json({"id": name, "sha": sha, "private": self.repository(name).private, "siblings": siblings})

    def tree(self, name: str, revision: str) -> None:
        _, files = self.at(name, revision)
        listed = []
        for path, content in files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
            if fnmatch(path, self.hub.large):
                oid = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": oid, "size": len(content), "pointerSize": 134}
            listed.append(entry)
        self.json(listed)

    def resolve(self, name: str, revision: str, path: str) -> None:
        sha, files = self.at(name, revision)
        if path not in files:
            raise ErrorResponse(404, "EntryNotFound")
        content = files[path]
        etag = hashlib.sha256(content).hexdigest() if fnmatch(path, self.hub.large) else git_oid(content)
        self.answer(content, {"ETag": f'"{etag}"', "X-Repo-Commit": sha})

    def create(self) -> None:
        request = json.loads(self.body)
        self.check_write_access(request["organization"])
        name = f"{request['organization']}/{request['name']}"
        if name in self.hub.repositories:
            raise ErrorResponse(409, body={"url": f"{self.hub.address}/{name}"})
        private = request.get("private") or request.get("visibility") == "private"
        self.hub.put(name, {".gitattributes": b"*.safetensors filter=lfs\n"}, private=bool(private))
        self.json({"url": f"{self.hub.address}/{name}"})

    def validate(self) -> None:
        text = json.loads(self.body)["content"]
        match = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        if match is None or not isinstance(yaml.safe_load(match[1]), dict):
            raise ErrorResponse(400, body={"errors": [{"message": "no metadata"}]})
        self.json({})

    def branch(self, name: str, branch: str) -> None:
        self.check_write_access(name.partition("/")[0])
        branches = self.repository(name).branches
        if branch in branches:
            raise ErrorResponse(409)
        branches[branch] = branches["main"]
        self.json({})

    def preupload(self, name: str, revision: str) -> None:
        self.check_write_access(name.partition("/")[0])
        self.at(name, revision)
        self.json({"files": [
            {"path": file["path"], "shouldIgnore": False,
             "uploadMode": "lfs" if fnmatch(file["path"], self.hub.large) else "regular"}
            for file in json.loads(self.body)["files"]
        ]})  # fmt: skip

    def batch(self, name: str) -> None:
        self.check_write_access(name.partition("/")[0])
        self.json({"transfer": "basic", "objects": [
            {**file, "actions": {"upload": {"href": f"{self.hub.address}/store/{file['oid']}"}}}
            for file in json.loads(self.body)["objects"]
        ]})  # fmt: skip

    def store(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.store[oid] = self.body
        self.json({})

    def commit(self, name: str, branch: str) -> None:
        self.check_write_access(name.partition("/")[0])
        files = dict(self.at(name, branch)[1])
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.store[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
        sha = self.repository(name).commit(branch, files)
        self.json({"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha})

    def log_message(self, format: str, *args: object) -> None:
        pass


def git_oid(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a Hub on a free port while the block runs."""
    hub = Hub()
    with run_http_server(type("HubHandler", (Handler,), {"hub": hub})) as hub.address:
        yield hub
