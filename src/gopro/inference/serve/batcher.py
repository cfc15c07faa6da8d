"""The queue of images in front of the torch thread, which takes them in batches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from queue import Empty, SimpleQueue
from threading import Thread

from gopro.inference.serve.batched_inference import ImageJob

log = logging.getLogger("uvicorn.error")

RunBatch = Callable[[Sequence[ImageJob], Callable[[list[ImageJob]], None]], None]


class Batcher:
    """Runs batches of whatever images were queued while the previous batch was running.

    An image that arrives while nothing is running starts at once: nobody waits for a batch to fill up. The service's
    `ConcurrencyLimit` bounds the queue.
    """

    def __init__(self, run_batch: RunBatch, batch: int):
        """
        Args:
            run_batch: see `BatchedInference.run`; called only in the batcher's thread.
            batch: images per batch, at most.
        """
        self._run_batch, self._batch = run_batch, batch
        self._queue: SimpleQueue[ImageJob | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="torch", daemon=True)

    def start(self) -> None:
        """Start the thread; call this in the event loop that will await the images."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()

    def stop(self) -> None:
        """End the thread once the queue is empty."""
        self._queue.put(None)
        self._thread.join()

    def put(self, image: ImageJob) -> asyncio.Future[ImageJob]:
        """Queue an image and return the future of its results."""
        image.queued_at = time.perf_counter()
        self._queue.put(image)
        return image.done

    def _work(self) -> None:
        last = False
        while not last:
            images, last = self._next_batch()
            images = [image for image in images if not image.done.cancelled()]  # clients that have gone away
            if not images:
                continue
            try:
                self._run_batch(images, self._set_done)
            except Exception as error:  # of any kind: these clients must get it, and the others be served
                log.exception("a batch of %d images failed", len(images))
                self._set_done(images, error)

    def _next_batch(self) -> tuple[list[ImageJob], bool]:
        """Wait for an image and return it with all others in the queue, and whether this is the last batch."""
        images: list[ImageJob] = []
        image = self._queue.get()
        while image is not None:
            images.append(image)
            if len(images) == self._batch:
                return images, False
            try:
                image = self._queue.get_nowait()
            except Empty:
                return images, False
        return images, True

    def _set_done(self, images: list[ImageJob], error: Exception | None = None) -> None:
        def set_done() -> None:
            for image in images:
                if image.done.done():
                    continue
                if error is None:
                    image.done.set_result(image)
                else:
                    image.done.set_exception(error)

        with suppress(RuntimeError):  # shutdown closed the event loop before these requests were finished
            self._loop.call_soon_threadsafe(set_done)
