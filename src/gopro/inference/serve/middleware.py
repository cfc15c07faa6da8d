"""Around every request: how it is counted, and what a browser may do with the answer."""

from __future__ import annotations

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gopro.inference.serve.metrics import Metrics

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class Watched:
    """Counts requests by route and status, and adds the security headers."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            self.metrics.request(_route(scope), status, time.perf_counter() - started)


def _route(scope: Scope) -> str:
    """The path as the app has it, so that there are no more of them than routes."""
    if scope["path"].startswith("/page/"):
        return "/page"
    return getattr(scope.get("route"), "path", "other")
