"""First-order heads built in the background while other requests are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from threading import Thread

from gopro.inference.serve.errors import busy
from gopro.inference.taylor_head import TaylorHead

Names = tuple[str, ...]


@dataclass
class PendingHead:
    """A head that is being built or queued, and the number of requests that wait for it."""

    names: Names
    future: asyncio.Future[TaylorHead]
    waiting: int = 0


class HeadBuilder:
    """Builds heads one at a time in its own thread; requests for the same names share one build.

    A build that nobody waits for any more is skipped if it has not started, and finished (and cached) if it has. The
    thread is a daemon, so it does not delay the server's shutdown.
    """

    def __init__(self, build: Callable[[Names], TaylorHead], max_pending: int, seconds: float):
        """
        Args:
            build: called only in the builder's thread.
            max_pending: heads being built or queued, at most.
            seconds: longest time that a request waits.
        """
        self._build, self._max_pending, self._seconds = build, max_pending, seconds
        self._pending: dict[Names, PendingHead] = {}
        self._queue: SimpleQueue[PendingHead] = SimpleQueue()

    def start(self) -> None:
        """Start the thread; call this in the event loop that will await `head`."""
        self._loop = asyncio.get_running_loop()
        Thread(target=self._work, name="heads", daemon=True).start()

    async def head(self, names: Names) -> TaylorHead:
        """Wait for the head over these class names.

        Raises:
            InputError: see `Heads.build_first_order`.
            RequestError: 503, because too many heads are pending or this one takes too long.
        """
        pending = self._pending.get(names)
        if pending is None:
            if len(self._pending) >= self._max_pending:
                raise busy(f"{len(self._pending)} fast approximations are already being built or queued")
            pending = self._pending[names] = PendingHead(names, self._loop.create_future())
            self._queue.put(pending)
        pending.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(pending.future)
        except TimeoutError:
            raise busy(f"the fast approximation for these {len(names)} class names is still being built") from None
        finally:
            pending.waiting -= 1
            if not pending.waiting:
                pending.future.cancel()
                if self._pending.get(names) is pending:
                    del self._pending[names]

    def _work(self) -> None:
        while True:
            pending = self._queue.get()
            if pending.future.cancelled():
                continue
            try:
                head = self._build(pending.names)
            except Exception as error:  # of any kind: the requests that wait must get it
                self._settle(pending, pending.future.set_exception, error)
            else:
                self._settle(pending, pending.future.set_result, head)

    def _settle(self, pending: PendingHead, set_outcome: Callable, outcome: TaylorHead | Exception) -> None:
        def settle() -> None:
            if not pending.future.done():
                set_outcome(outcome)

        with suppress(RuntimeError):  # the event loop is closed already
            self._loop.call_soon_threadsafe(settle)
