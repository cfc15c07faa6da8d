"""Errors of a request, all answered in one JSON shape."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CLIENT_CLOSED_REQUEST = 499
"""nginx's status for a client that closed the connection before it was answered; only the metrics see it."""

_CODES = {404: "not_found", 405: "method_not_allowed"}


class RequestError(Exception):
    """A request that cannot be answered.

    Attributes:
        status: HTTP status.
        code: short name for programs, such as `too_large`.
        message: one line for people: what is wrong, and what to do.
        headers: further response headers.
        details: further entries of the JSON object.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None, **details: Any):
        super().__init__(message)
        self.status, self.code, self.message, self.headers, self.details = status, code, message, headers, details

    def response(self) -> JSONResponse:
        """Return `{"error": {"code": ..., "message": ..., ...}}`."""
        error = {"code": self.code, "message": self.message, **self.details}
        return JSONResponse({"error": error}, self.status, self.headers)


def busy(reason: str) -> RequestError:
    """Return the error for a request that may succeed in a moment."""
    return RequestError(503, "busy", f"{reason}: try again in a moment", {"Retry-After": "1"})


def add_error_handlers(app: FastAPI) -> None:
    """Make the app answer every error in the shape of `RequestError.response`."""

    @app.exception_handler(RequestError)
    async def _(request: Request, error: RequestError) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        headers = None if error.headers is None else dict(error.headers)
        message = f"{request.method} {request.url.path}: {error.detail}; see /openapi.json for what exists"
        code = _CODES.get(error.status_code, "bad_request")
        return RequestError(error.status_code, code, message, headers).response()

    @app.exception_handler(ClientDisconnect)
    async def _(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=CLIENT_CLOSED_REQUEST)


class InternalErrorMiddleware:
    """Middleware that answers an unforeseen error, which it passes on so that uvicorn logs the traceback.

    FastAPI would call a handler of `Exception` outside all other middleware: the answer would have neither the headers
    that let a page of another origin read it nor those for security.
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answered = False

        async def send_first(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, receive, send_first)
        except Exception:
            if scope["type"] == "http" and not answered:
                error = RequestError(500, "internal", "internal error: the server's log has the traceback")
                await error.response()(scope, receive, send)
            raise
