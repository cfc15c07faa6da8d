"""The API key, if the server has one."""

from __future__ import annotations

import hmac
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gopro.errors import InputError
from gopro.inference.serve.errors import Refusal


def read_key(file: Path) -> str:
    """The key that a file holds.

    Raises:
        InputError: the file cannot be read, or does not hold one line of visible ASCII.
    """
    try:
        key = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        raise InputError(f"API key file {file} cannot be read: {reason}") from error
    return checked_key(key, f"API key file {file}")


def checked_key(key: str, where: str) -> str:
    """The key, if a header can carry it.

    Raises:
        InputError: it is empty, or has spaces, line ends or other than ASCII.
    """
    if not key or not all("!" <= character <= "~" for character in key):
        raise InputError(f"{where} does not hold a key: write one line of letters and digits into it")
    return key


class KeyNeeded:
    """Lets requests through that carry the key, as `X-API-Key: KEY` or `Authorization: Bearer KEY`; those for /health,
    for the page and its files need none."""

    def __init__(self, app: ASGIApp, key: str):
        self.app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._open(scope["path"]) or self._carried(Headers(scope=scope)):
            await self.app(scope, receive, send)
            return
        message = "this server wants its API key: send it as X-API-Key or Authorization: Bearer"
        refusal = Refusal(401, "key_needed", message, {"WWW-Authenticate": "Bearer"})
        await refusal.response()(scope, receive, send)

    def _open(self, path: str) -> bool:
        return path in ("/", "/health") or path.startswith("/page/")

    def _carried(self, headers: Headers) -> bool:
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = headers.get("x-api-key") or (bearer if scheme.lower() == "bearer" else "")
        return hmac.compare_digest(given.encode(), self._key)
