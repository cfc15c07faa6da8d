"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """A registry of one server's own, with the process's memory and processor time."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = Counter(
            "gopro_requests", "Requests answered, by path and status.", ("path", "status"), registry=self.registry
        )
        self._request_seconds = Histogram(
            "gopro_request_seconds", "What a request took.", ("path",), buckets=SECONDS, registry=self.registry
        )
        self._images = Counter(
            "gopro_images", "Images asked about: encoded, cached or unreadable.", ("how",), registry=self.registry
        )
        self._batch = Histogram(
            "gopro_tower_images",
            "Images a call of the image tower.",
            buckets=IMAGES,
            registry=self.registry,
        )
        self._stages = Histogram(
            "gopro_stage_seconds",
            "What stages take: decode an image, queue an image, tower and each head a batch.",
            ("stage",),
            buckets=SECONDS,
            registry=self.registry,
        )

    def gauge(self, name: str, what: str, value: Callable[[], float]) -> None:
        """Something whose value is looked up when it is asked for."""
        Gauge(name, what, registry=self.registry).set_function(value)

    def request(self, path: str, status: int, seconds: float) -> None:
        self._requests.labels(path, str(status)).inc()
        self._request_seconds.labels(path).observe(seconds)

    def image(self, how: str) -> None:
        self._images.labels(how).inc()

    def tower(self, images: int, milliseconds: float) -> None:
        self._batch.observe(images)
        self.stage("tower", milliseconds)

    def stage(self, name: str, milliseconds: float) -> None:
        self._stages.labels(name).observe(milliseconds / 1000)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self.registry)
