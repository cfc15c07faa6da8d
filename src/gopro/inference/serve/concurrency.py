"""How much is in the house at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from gopro.inference.serve.errors import busy


class Gate:
    """Lets in no more than so many at once, and sends the others away. For the event loop's thread alone."""

    def __init__(self, what: str, most: int):
        self.what, self.most = what, most
        self.held = 0

    @contextmanager
    def holding(self, count: int = 1) -> Iterator[None]:
        """Holds a place for so many.

        Raises:
            Refusal: 503, there is no room.
        """
        if self.held + count > self.most:
            raise busy(f"{self.held} {self.what} are being worked on, and there is room for {self.most}")
        self.held += count
        try:
            yield
        finally:
            self.held -= count
