"""The server's process: its socket, and how it stops."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from gopro.errors import InputError
from gopro.inference.serve.limits import Limits
from gopro.inference.serve.slow_clients import Connection

PATIENCE = 60
"""Seconds that requests in flight are given when the server is told to stop."""


def bound(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes any that is free.

    Raises:
        InputError: no such address here, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port {port}: give one from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot serve at {host}, port {port}: {reason}; choose another --host or --port") from error


def configured(app: FastAPI, limits: Limits) -> uvicorn.Config:
    """How uvicorn serves the app."""
    connection: Any = partial(Connection, seconds=limits.upload_seconds)
    return uvicorn.Config(
        app,
        http=connection,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=PATIENCE,
    )


def run_server(
    app: FastAPI,
    listening: socket.socket,
    limits: Limits,
    on_ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves until SIGTERM or SIGINT: then new connections are refused and requests in flight are answered. A second
    SIGINT stops at once.

    Args:
        on_ready: told the address once the server answers.
    """
    server = _Server(configured(app, limits), lambda: on_ready(_address(listening)))
    # When it has stopped, uvicorn raises the signal once more, for whoever handled it before.
    before = signal.signal(signal.SIGTERM, _nothing)
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)


class _Server(uvicorn.Server):
    """Says when it is there."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]):
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def _nothing(number: int, frame: FrameType | None) -> None:
    pass


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
