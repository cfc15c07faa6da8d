"""The API key of a server, if it has one."""

from __future__ import annotations

import hmac
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gopro.errors import InputError
from gopro.inference.serve.errors import RequestError


def read_key(file: Path) -> str:
    """Read the API key from a file.

    Raises:
        InputError: the file cannot be read, or is not one line of printable ASCII without spaces.
    """
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise InputError(f"API key file {file} cannot be read: {reason}") from error
    return check_key(key, f"API key file {file}")


def check_key(key: str, source: str) -> str:
    """Return the key if an HTTP header can carry it.

    Args:
        source: where the key comes from, for the message.

    Raises:
        InputError: the key is empty, or has spaces, line breaks or characters outside ASCII.
    """
    if not key or not all("!" <= character <= "~" for character in key):
        raise InputError(f"{source} does not hold a key: give one line of ASCII letters and digits, without spaces")
    return key


class ApiKeyMiddleware:
    """Middleware that refuses requests without the key, sent as `X-API-Key: KEY` or `Authorization: Bearer KEY`.

    `/health`, the page and the page's files need no key. Everything else does, unknown paths and `/openapi.json` too,
    which a FastAPI dependency on the routes would let through.
    """

    def __init__(self, app: ASGIApp, key: str):
        self.app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_public(scope["path"]) or self._has_key(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        message = "this server needs an API key: send it as X-API-Key: KEY or Authorization: Bearer KEY"
        error = RequestError(401, "key_needed", message, {"WWW-Authenticate": "Bearer"})
        await error.response()(scope, receive, send)

    def _has_key(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        key = headers.get("x-api-key") or (token if scheme.lower() == "bearer" else "")
        return hmac.compare_digest(key.encode(), self._key)  # in constant time, or its first letters could be guessed


def _is_public(path: str) -> bool:
    return path in ("/", "/health") or path.startswith("/page/")
