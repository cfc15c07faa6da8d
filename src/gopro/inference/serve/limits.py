"""Limits on what a server accepts and keeps in memory."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from gopro.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a server. A request past one of them is refused with a message that names it.

    Raises:
        InputError: a limit is below 1, or `max_queue` is too small for one full request.
    """

    max_images: int = 32
    """Images per request, at most."""
    max_names: int = 1000
    """Class names per request, at most."""
    max_name_length: int = 200
    """Characters per class name, at most."""
    max_upload_mib: int = 32
    """Size of a request in MiB, at most."""
    max_megapixels: int = 50
    """Million pixels per image, at most; larger images are not decoded."""
    max_requests: int = 128
    """Prediction requests in progress, at most; further ones are told to try again later."""
    max_queue: int = 256
    """Images waiting or being processed, at most; further requests are told to try again later."""
    upload_seconds: int = 60
    """Seconds that the body of a request may take to arrive."""
    batch: int = 64
    """Images per pass through the image tower, at most."""
    encodings_mib: int = 64
    """MiB of cached image encodings, so that asking again about an image with other class names is cheap."""
    heads_mib: int = 256
    """MiB of cached heads: the prompts, text features and first-order heads of recent lists of class names."""
    head_names: int = 200
    """Class names of a first-order head that is built on request, at most."""
    head_builds: int = 4
    """First-order heads being built or waiting to be built, at most."""
    head_seconds: int = 20
    """Seconds that a request waits for a first-order head to be built."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise InputError(f"{name} is {value}: give at least 1")
        if self.max_queue < self.max_images:
            raise InputError(f"max_queue is {self.max_queue}: give at least max_images, which is {self.max_images}")

    @property
    def upload_bytes(self) -> int:
        return self.max_upload_mib << 20

    @property
    def pixels(self) -> int:
        return self.max_megapixels * 1_000_000
