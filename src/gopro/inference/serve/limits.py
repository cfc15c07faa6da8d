"""What a server takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gopro.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes. Past any of these a request is refused, and told so.

    Raises:
        InputError: a limit below 1; a queue that a request within the limits would not fit in.
    """

    max_images: int = 32
    """Images a request."""
    max_names: int = 1000
    """Class names a request."""
    max_name_length: int = 200
    """Characters of a class name."""
    max_upload_mib: int = 32
    """MiB of a request."""
    max_megapixels: int = 50
    """Million pixels of an image; larger ones are not decoded."""
    max_requests: int = 128
    """Requests for predictions that are received or worked on at once; more are told to come again."""
    max_queue: int = 256
    """Images that wait or are worked on at once; more are told to come again."""
    upload_seconds: int = 60
    """Seconds that the head of a request may take to arrive, and then the rest of it."""
    batch: int = 64
    """Images that go through the image tower at once."""
    encodings_mib: int = 64
    """MiB for what the image tower said of the latest images, so that asking again with other names is cheap."""
    heads_mib: int = 256
    """MiB for the latest lists of class names: their prompts, text features and first-order heads."""
    head_names: int = 200
    """Class names that a first-order head is built for when one is asked for."""
    head_builds: int = 4
    """First-order heads that are being built or wait for it."""
    head_seconds: int = 20
    """Seconds that a request waits for a first-order head that is being built."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise InputError(f"{name} is {value}: give at least 1")
        if self.max_queue < self.max_images:
            raise InputError(f"max_queue is {self.max_queue}: give at least max_images, {self.max_images}")

    @property
    def upload_bytes(self) -> int:
        return self.max_upload_mib << 20

    @property
    def pixels(self) -> int:
        return self.max_megapixels * 1_000_000
