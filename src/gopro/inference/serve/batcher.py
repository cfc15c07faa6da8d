"""The queue in front of the engine: one thread takes what waits, of all clients together, up to a batch."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

from gopro.inference.serve.inference import Item

log = logging.getLogger("uvicorn.error")

Answer = Callable[[Sequence[Item], Callable[[list[Item]], None]], None]


class Batcher:
    """Batches of whatever has gathered while the batch before was worked on.

    An image that comes while nothing is worked on goes at once: nobody waits for a batch to fill. The queue is bounded
    by the service's gate.
    """

    def __init__(self, answer: Answer, batch: int):
        """
        Args:
            answer: see `Engine.answer`; called in the batcher's thread alone.
            batch: most images of a batch.
        """
        self._answer, self._batch = answer, batch
        self._waiting: SimpleQueue[Item | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="torch", daemon=True)

    def start(self) -> None:
        """In the event loop that asks."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread once it has done what waits."""
        self._waiting.put(None)
        self._thread.join()

    def put(self, item: Item) -> asyncio.Future[Item]:
        """The item once it is answered."""
        item.put = time.perf_counter()
        self._waiting.put(item)
        return item.answered

    def _work(self) -> None:
        ended = False
        while not ended:
            items, ended = self._gathered()
            items = [item for item in items if not item.answered.cancelled()]  # whose clients are gone
            if not items:
                continue
            try:
                self._answer(items, self._done)
            except Exception as error:  # whatever it is, those who wait must hear of it, and the others be served
                log.exception("a batch of %d images failed", len(items))
                self._tell(items, error)

    def _gathered(self) -> tuple[list[Item], bool]:
        """The next batch, and whether it is the last."""
        items: list[Item] = []
        item = self._waiting.get()
        while item is not None:
            items.append(item)
            if len(items) == self._batch:
                return items, False
            try:
                item = self._waiting.get_nowait()
            except Empty:
                return items, False
        return items, True

    def _done(self, items: list[Item]) -> None:
        self._tell(items, None)

    def _tell(self, items: list[Item], error: Exception | None) -> None:
        def tell() -> None:
            for item in items:
                if item.answered.done():
                    continue
                if error is None:
                    item.answered.set_result(item)
                else:
                    item.answered.set_exception(error)

        with suppress(RuntimeError):  # the loop was closed over requests that took too long to stop
            self._loop.call_soon_threadsafe(tell)
