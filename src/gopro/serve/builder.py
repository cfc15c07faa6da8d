"""First-order heads built on the side, while requests are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gopro.first_order import FirstOrder
from gopro.serve.refusals import busy

Names = tuple[str, ...]


@dataclass
class _Build:
    future: asyncio.Future[FirstOrder]
    waiting: int = 0


class Builder:
    """Builds heads one at a time in a thread of its own; who asks for the same names waits for the same head.

    A head that nobody waits for any more is not begun, one that is begun is finished and kept.
    """

    def __init__(self, build: Callable[[Names], FirstOrder], most: int, seconds: float):
        """
        Args:
            build: called in the builder's thread.
            most: heads that are being built or wait for it.
            seconds: that somebody waits at most.
        """
        self._build, self._most, self._seconds = build, most, seconds
        self._builds: dict[Names, _Build] = {}
        self._thread = ThreadPoolExecutor(1, "heads")

    async def head(self, names: Names) -> FirstOrder:
        """The head over these names, once it is there.

        Raises:
            InputError: as `Heads.built`.
            Refusal: 503, there is no room, or it takes longer than that.
        """
        build = self._builds.get(names)
        if build is None:
            if len(self._builds) >= self._most:
                raise busy(f"{len(self._builds)} first-order heads are being built, and no more may wait")
            build = _Build(asyncio.get_running_loop().run_in_executor(self._thread, self._build, names))
            self._builds[names] = build
            build.future.add_done_callback(lambda future: self._ended(names, build))
        build.waiting += 1
        try:
            async with asyncio.timeout(self._seconds):
                return await asyncio.shield(build.future)
        except TimeoutError:
            raise busy(f"the first-order head for these {len(names)} class names is still being built") from None
        finally:
            build.waiting -= 1
            if not build.waiting and self._builds.get(names) is build:
                build.future.cancel()  # without effect on the thread if it has begun

    def _ended(self, names: Names, build: _Build) -> None:
        if self._builds.get(names) is build:
            del self._builds[names]
        if not build.future.cancelled():
            build.future.exception()  # looked at, also where nobody waits for it any more

    def stop(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
