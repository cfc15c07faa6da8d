"""Web pages of other origins that may ask the server (CORS)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gopro.errors import InputError

ANY = "*"
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?")
_DEFAULT_PORTS = {"http": "80", "https": "443"}


def check_origins(origins: Sequence[str]) -> list[str]:
    """Return the origins as browsers send them: in lower case, without the scheme's own port.

    Raises:
        InputError: one of them is not an origin. It would never equal what a browser sends, and nobody would know why.

    Example:
        >>> check_origins(["https://Example.org:443", "http://localhost:3000"])
        ['https://example.org', 'http://localhost:3000']
    """
    return [origin if origin == ANY else _as_sent(origin) for origin in origins]


def _as_sent(origin: str) -> str:
    match = _ORIGIN.fullmatch(origin.lower())
    if match is None:
        raise InputError(
            f"--allow-origin {origin}: not the origin of a web page: give scheme, host and port without a path, such "
            "as https://example.org or http://localhost:3000, or * for the pages of every site"
        )
    scheme, host, port = match.groups()
    return f"{scheme}://{host}" + ("" if port in (None, _DEFAULT_PORTS.get(scheme)) else f":{port}")


def cors_settings(origins: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of Starlette's `CORSMiddleware` for the origins that `check_origins` returned."""
    return {
        "allow_origins": list(origins),
        "allow_methods": ["GET", "POST"],
        "allow_headers": ["Authorization", "Content-Type", "X-API-Key"],
        "expose_headers": ["Retry-After"],  # of a busy server; pages could not read it otherwise
    }
