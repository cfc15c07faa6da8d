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
    """Maximum number of images per request."""
    max_names: int = 1000
    """Maximum number of class names per request."""
    max_name_length: int = 200
    """Maximum length of a class name, in characters."""
    max_upload_mib: int = 32
    """Maximum size of a request, in MiB."""
    max_megapixels: int = 50
    """Maximum size of an image, in million pixels; larger images are not decoded."""
    max_requests: int = 128
    """Maximum number of prediction requests in progress; further ones are refused with status 503."""
    max_queue: int = 256
    """Maximum number of images waiting or being processed; further requests are refused with status 503."""
    upload_seconds: int = 60
    """Maximum time for the body of a request to arrive, in seconds."""
    batch: int = 64
    """Maximum number of images per pass through the image tower."""
    encodings_mib: int = 64
    """Cache size for encodings of recent images, in MiB; they make other class names for the same image cheap."""
    heads_mib: int = 256
    """Cache size for prompts, text features and first-order heads of recent class names, in MiB."""
    head_names: int = 200
    """Maximum number of class names of a first-order head that is built on request."""
    head_builds: int = 4
    """Maximum number of first-order heads being built or queued."""
    head_seconds: int = 20
    """Maximum time that a request waits for a first-order head, in seconds."""

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
