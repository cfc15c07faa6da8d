"""A connection, which has only so long to say what it wants."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


class Connection(H11Protocol):
    """Uvicorn's, which waits for the head of a request for as long as a client pleases, with a limit to that.

    The rest of a request is the app's to wait for, and a connection that was answered and is silent is uvicorn's.

    Args:
        seconds: that the head of a request may take to arrive, from the connection or from its first byte on.
    """

    def __init__(self, *args: Any, seconds: float, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._seconds = seconds
        self._too_slow: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Has the clock run while a head is on its way, and only then."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering or self.transport.is_closing():
            self._unwatch()
        elif self._too_slow is None:
            self._too_slow = self.loop.call_later(self._seconds, self._hang_up)

    def _unwatch(self) -> None:
        if self._too_slow is not None:
            self._too_slow.cancel()
            self._too_slow = None

    def _hang_up(self) -> None:
        self.transport.close()
