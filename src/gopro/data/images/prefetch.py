"""Images decoded in threads ahead of the caller, in order, however many there are."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Literal

from torch import Tensor

from gopro.data.dataset import ImageSource
from gopro.data.images.transforms import View
from gopro.errors import InputError

Decoded = tuple[ImageSource, Tensor | InputError]
"""An image and its view, or the reason why it has none."""

QUEUE_POLL_SECONDS = 0.2
"""Time that an incomplete batch waits for the next image before it is passed on as it is."""

_BATCHES_AHEAD = 2  # one that waits while another is worked on


def decode_ahead(
    images: Iterable[ImageSource], view: View, *, batch: int = 64, workers: int | None = None
) -> Generator[list[Decoded], None, None]:
    """Yield batches of views in the order of the images; an image that cannot be read gives its error instead.

    Threads decode while the caller works on the previous batch, and at most two batches are held ready. The decoders
    release Python's lock, so threads are as fast as processes, and images in memory need not be copied to them.

    Args:
        images: iterated in a thread of its own, and only as far as there is room; it may wait for its images.
        workers: threads; by default one per core, at most 16.

    Raises:
        Any exception that `images` raises.
    """
    workers = workers or min(16, os.cpu_count() or 1)
    room, closed = Semaphore(_BATCHES_AHEAD * batch), Event()
    queue: SimpleQueue[tuple[ImageSource, Future[Tensor | InputError]] | BaseException | Literal["end"]] = SimpleQueue()

    def feed() -> None:
        try:
            for image in images:
                room.acquire()
                if closed.is_set():
                    return
                queue.put((image, pool.submit(_open, image, view)))
            queue.put("end")
        except BaseException as error:
            queue.put(error)

    pool = ThreadPoolExecutor(workers, "decode")
    Thread(target=feed, name="images", daemon=True).start()  # a daemon, as it may wait for ever for the user's pipe
    ready: list[Decoded] = []
    try:
        while True:
            try:
                item = queue.get(timeout=QUEUE_POLL_SECONDS if ready else None)
            except Empty:
                yield ready
                ready = []
                continue
            if isinstance(item, str):
                break
            if isinstance(item, BaseException):
                raise item
            ready.append((item[0], item[1].result()))
            room.release()
            if len(ready) == batch:
                yield ready
                ready = []
        if ready:
            yield ready
    finally:
        closed.set()
        room.release()
        pool.shutdown(cancel_futures=True)


def _open(image: ImageSource, view: View) -> Tensor | InputError:
    try:
        return view(image.open())
    except InputError as error:
        return error
    except MemoryError:
        return InputError(f"{image.name}: there is not enough memory to decode it; scale it down")
