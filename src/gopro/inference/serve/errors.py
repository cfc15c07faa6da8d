"""How a request is refused: one form of JSON for whatever is wrong."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

GONE = 499
"""What nginx calls a client that closed the connection before it was answered."""


class Refusal(Exception):
    """A request that is not answered.

    Attributes:
        status: HTTP's.
        code: a word for programs.
        message: a line for people, that says what is wrong and what to do.
        headers: more of the response.
        more: whatever else the error says.
    """

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None, **more: Any):
        super().__init__(message)
        self.status, self.code, self.message, self.headers, self.more = status, code, message, headers, more

    def response(self) -> JSONResponse:
        error = {"code": self.code, "message": self.message, **self.more}
        return JSONResponse({"error": error}, self.status, self.headers)


def busy(what: str) -> Refusal:
    """For what would be answered at another time."""
    return Refusal(503, "busy", f"{what}: ask again in a moment", {"Retry-After": "1"})


_CODES = {404: "not_found", 405: "method_not_allowed"}


def refuse_in_json(app: FastAPI) -> None:
    """Lets everything that goes wrong in the app come out in this form."""

    @app.exception_handler(Refusal)
    async def _(request: Request, error: Refusal) -> Response:
        return error.response()

    @app.exception_handler(HTTPException)
    async def _(request: Request, error: HTTPException) -> Response:
        headers = None if error.headers is None else dict(error.headers)
        message = f"{request.method} {request.url.path}: {error.detail}; /openapi.json says what there is"
        return Refusal(error.status_code, _CODES.get(error.status_code, "bad_request"), message, headers).response()

    @app.exception_handler(ClientDisconnect)
    async def _(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=GONE)

    @app.exception_handler(Exception)  # the server logs it
    async def _(request: Request, error: Exception) -> Response:
        return Refusal(500, "internal", "something is wrong in the server: see what it printed").response()
