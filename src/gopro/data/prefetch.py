"""Images decoded ahead of whoever works on them, in order, however many there are."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from threading import Event, Semaphore, Thread
from typing import Literal

from torch import Tensor

from gopro.data.dataset import ImageSource
from gopro.data.transforms import View
from gopro.errors import InputError

Decoded = tuple[ImageSource, Tensor | InputError]
"""An image and its view, or why there is none."""

PATIENCE = 0.2
"""Seconds that a batch waits for a source of images that gives none, before it goes on with what it has."""

_AHEAD = 2  # batches: one that is waiting while another is worked on


def decode_ahead(
    images: Iterable[ImageSource], view: View, *, batch: int = 64, workers: int | None = None
) -> Generator[list[Decoded], None, None]:
    """Batches of views, in the order of the images; a file that cannot be read takes its place with the reason.

    Threads decode while the caller works on the batch before, and no more than two batches are held ready. The decoders
    work outside Python's lock: threads are as fast as processes, and take images that are in memory as they are.

    Args:
        images: iterated in a thread of its own, as far as there is room, so that a source may keep one waiting.
        workers: threads, one for each core, 16 at most, if not given.

    Raises:
        Whatever `images` raises.
    """
    workers = workers or min(16, os.cpu_count() or 1)
    room, closed = Semaphore(_AHEAD * batch), Event()
    waiting: SimpleQueue[tuple[ImageSource, Future[Tensor | InputError]] | BaseException | Literal["end"]] = (
        SimpleQueue()
    )

    def feed() -> None:
        try:
            for image in images:
                room.acquire()
                if closed.is_set():
                    return
                waiting.put((image, pool.submit(_open, image, view)))
            waiting.put("end")
        except BaseException as error:
            waiting.put(error)

    pool = ThreadPoolExecutor(workers, "decode")
    Thread(target=feed, name="images", daemon=True).start()  # daemon: it may hang in reading from somebody's pipe
    ready: list[Decoded] = []
    try:
        while True:
            try:
                item = waiting.get(timeout=PATIENCE if ready else None)
            except Empty:
                yield ready
                ready = []
                continue
            if isinstance(item, str):  # the end
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
