"""Middleware around every request: metrics and security headers."""

from __future__ import annotations

import time

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gopro.inference.serve.metrics import Metrics

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob: data:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


class MetricsMiddleware:
    """Middleware that counts requests by route and status, and adds the security headers to every response."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        finally:
            self.metrics.count_request(_route(scope), status, time.perf_counter() - started)


def _route(scope: Scope) -> str:
    """Return the path as the app declares it: clients choose paths, so counting those would grow without bound."""
    if scope["path"].startswith("/page/"):
        return "/page"
    return getattr(scope.get("route"), "path", "other")
