"""Prometheus metrics of a server."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
_IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one server, in a registry of their own, with the memory and CPU time of the process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "gopro_requests", "Requests by route and status.", ("path", "status"), registry=registry
        )
        self._request_seconds = Histogram(
            "gopro_request_seconds", "Duration of a request.", ("path",), buckets=_SECONDS, registry=registry
        )
        self._images = Counter(
            "gopro_images", "Images by outcome: encoded, cached or unreadable.", ("outcome",), registry=registry
        )
        self._batches = Histogram(
            "gopro_tower_images", "Images per pass through the image tower.", buckets=_IMAGES, registry=registry
        )
        self._stages = Histogram(
            "gopro_stage_seconds",
            "Duration of a stage: decode and queue per image, tower and each head per batch.",
            ("stage",),
            buckets=_SECONDS,
            registry=registry,
        )

    def add_gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a metric that is read when Prometheus asks."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def count_request(self, path: str, status: int, seconds: float) -> None:
        self._requests.labels(path, str(status)).inc()
        self._request_seconds.labels(path).observe(seconds)

    def count_image(self, outcome: str) -> None:
        self._images.labels(outcome).inc()

    def count_batch(self, images: int, milliseconds: float) -> None:
        """Count one pass through the image tower."""
        self._batches.observe(images)
        self.count_stage("tower", milliseconds)

    def count_stage(self, name: str, milliseconds: float) -> None:
        self._stages.labels(name).observe(milliseconds / 1000)

    def text(self) -> bytes:
        """Return all metrics in Prometheus's text format."""
        return generate_latest(self._registry)
