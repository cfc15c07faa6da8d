"""First-order heads built on the side, while requests are answered."""

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
class Build:
    """A head that is being built or waits for it, and how many wait for the head."""

    names: Names
    head: asyncio.Future[TaylorHead]
    waiting: int = 0


class Builder:
    """Builds heads one at a time in a thread of its own; who asks for the same names waits for the same head.

    A head that nobody waits for any more is not begun; one that is begun is finished, and kept by who builds it. The
    thread is a daemon, so that a server that stops doesn't wait for it.
    """

    def __init__(self, build: Callable[[Names], TaylorHead], most: int, seconds: float):
        """
        Args:
            build: called in the builder's thread alone.
            most: heads that are being built or wait for it.
            seconds: that somebody waits at most.
        """
        self._build, self._most, self._seconds = build, most, seconds
        self._builds: dict[Names, Build] = {}
        self._queue: SimpleQueue[Build] = SimpleQueue()

    def start(self) -> None:
        """In the event loop that asks."""
        self._loop = asyncio.get_running_loop()
        Thread(target=self._work, name="heads", daemon=True).start()

    async def head(self, names: Names) -> TaylorHead:
        """The head over these names, once it is there.

        Raises:
            InputError: as `Heads.built`.
            Refusal: 503, there is no room, or it takes longer than that.
        """
        build = self._builds.get(names)
        if build is None:
            if len(self._builds) >= self._most:
                raise busy(f"{len(self._builds)} first-order heads are being built, and no more may wait")
            build = self._builds[names] = Build(names, self._loop.create_future())
            self._queue.put(build)
        build.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(build.head)
        except TimeoutError:
            raise busy(f"the first-order head for these {len(names)} class names is still being built") from None
        finally:
            build.waiting -= 1
            if not build.waiting:
                build.head.cancel()
                if self._builds.get(names) is build:
                    del self._builds[names]

    def _work(self) -> None:
        while True:
            build = self._queue.get()
            if build.head.cancelled():
                continue
            try:
                head = self._build(build.names)
            except Exception as error:  # whatever it is, those who wait must hear of it
                self._tell(build, build.head.set_exception, error)
            else:
                self._tell(build, build.head.set_result, head)

    def _tell(self, build: Build, settle: Callable, outcome: TaylorHead | Exception) -> None:
        def tell() -> None:
            if not build.head.done():
                settle(outcome)

        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(tell)
