"""The server process: its socket, uvicorn, and an orderly shutdown."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from gopro.errors import InputError

SHUTDOWN_GRACE_SECONDS = 60
"""Seconds for requests in progress to finish after the server is told to stop."""


def listen(host: str, port: int) -> socket.socket:
    """Open a listening socket; port 0 means any free port.

    Raises:
        InputError: this machine has no such address, or the port is taken.
    """
    if not 0 <= port <= 65535:
        raise InputError(f"port {port}: give a number from 0 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot listen on {host}, port {port}: {reason}; choose another --host or --port") from error


def uvicorn_config(app: FastAPI) -> uvicorn.Config:
    """Return the settings that uvicorn serves the app with."""
    return uvicorn.Config(
        app,
        http="h11",  # the same on every machine, whether httptools is installed or not
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SHUTDOWN_GRACE_SECONDS,
    )


def run_server(app: FastAPI, listener: socket.socket, on_ready: Callable[[str], None] = lambda address: None) -> None:
    """Serve the app until SIGTERM or SIGINT; then refuse new connections and finish the requests in progress.

    A second SIGINT stops at once.

    Args:
        on_ready: called with the server's address once it answers.
    """
    server = _Server(uvicorn_config(app), lambda: on_ready(_address(listener)))
    # After stopping, uvicorn raises the signal again for the previous handler; the default one would kill the process.
    previous = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])
    finally:
        signal.signal(signal.SIGTERM, previous)


class _Server(uvicorn.Server):
    """A uvicorn server that calls `on_ready` once it answers."""

    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]):
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
