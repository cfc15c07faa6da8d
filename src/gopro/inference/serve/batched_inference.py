"""Predictions for a batch of images that may come from many requests, each with its own class names and heads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from gopro.clip.backbone import Encoded
from gopro.errors import InputError
from gopro.inference.serve.heads import HeadKey, Heads
from gopro.inference.serve.lru_cache import SharedLRUCache
from gopro.inference.serve.metrics import Metrics
from gopro.methods.base import Method

MAX_LOGITS = 4096
"""Images times class names per call of `Method.logits`. Methods that make prompts per image encode one text for each
of these pairs, so this bounds memory, whatever clients ask."""


@dataclass
class HeadResult:
    """Predictions of one head for one image.

    Attributes:
        predictions: (name, probability) of the `top_k` likeliest classes, likeliest first.
        error: why there are none.
        milliseconds: time for all images of the batch that were asked about with the same names.
    """

    predictions: list[tuple[str, float]] = field(default_factory=list)
    error: InputError | None = None
    milliseconds: float = 0.0


@dataclass(eq=False)
class ImageJob:
    """An image of a request, from the upload to its results.

    Attributes:
        name: file name that the client gave.
        heads: the heads that are to answer.
        first_order: the first-order heads among them.
        top_k: number of predictions that the client wants.
        done: future that is set to this object, in the event loop, once `results` is complete.
        digest: hash of the file, by which encodings are cached.
        view: input of the image tower; None if `row` is all that is needed.
        row: encoding by the frozen image tower (`Encoded.rows`), if it is cached or computed.
        error: why the image cannot be read.
        decode_ms: time to decode the image.
        queued_at, started_at: when it was queued and when its batch was started, in `time.perf_counter` seconds.
        encode_ms: time of the image tower for its batch; 0 if the encoding was cached.
        results: one per head.
    """

    name: str
    heads: tuple[HeadKey, ...]
    first_order: dict[HeadKey, Method]
    top_k: int
    done: asyncio.Future[ImageJob]
    digest: bytes = b""
    view: Float[Tensor, "3 size size"] | None = None
    row: Float[Tensor, " width"] | None = None
    error: InputError | None = None
    decode_ms: float = 0.0
    queued_at: float = 0.0
    started_at: float = 0.0
    encode_ms: float = 0.0
    results: dict[HeadKey, HeadResult] = field(default_factory=dict)


class BatchedInference:
    """Image tower and heads of a run, used by the torch thread alone.

    Attributes:
        encodings: encodings of recent images by the frozen image tower, by digest.
    """

    def __init__(self, heads: Heads, encodings: SharedLRUCache[bytes, Tensor], metrics: Metrics):
        self.heads, self.encodings, self.metrics = heads, encodings, metrics
        self.backbone = heads.run.method.backbone

    @torch.no_grad()
    def run(self, jobs: Sequence[ImageJob], on_done: Callable[[list[ImageJob]], None]) -> None:
        """Fill in the results of a batch, cheap heads first.

        If a head cannot take its class names, only the images that are asked about with these names get an error.

        Args:
            on_done: called with the jobs whose results are complete, as soon as they are.
        """
        started = time.perf_counter()
        for job in jobs:
            job.started_at = started
        self._encode([job for job in jobs if job.row is None and self._needs_row(job)])
        groups: dict[HeadKey, list[ImageJob]] = {}
        for job in jobs:
            for key in job.heads:
                groups.setdefault(key, []).append(job)
        for key, group in sorted(groups.items(), key=lambda item: _cost(*item)):
            self._run_head(key, [job for job in group if not job.done.cancelled()])
            on_done([job for job in group if len(job.results) == len(job.heads)])

    def _needs_row(self, job: ImageJob) -> bool:
        return any(key.head == "zeroshot" or self.heads.run.method.frozen_images for key in job.heads)

    def _encode(self, jobs: Sequence[ImageJob]) -> None:
        """Set `row` of each job; copies of the same file pass through the tower once."""
        views = {job.digest: job.view for job in jobs if job.view is not None}
        if not views:
            return
        started = time.perf_counter()
        rows = self.backbone.encode(self._stack(views.values())).rows().cpu()
        milliseconds = 1000 * (time.perf_counter() - started)
        by_digest = {digest: row.clone() for digest, row in zip(views, rows, strict=True)}
        for digest, row in by_digest.items():
            self.encodings.put(digest, row)
        for job in jobs:
            job.row, job.encode_ms = by_digest[job.digest], milliseconds
        self.metrics.count_batch(len(views), milliseconds)

    def _run_head(self, key: HeadKey, jobs: Sequence[ImageJob]) -> None:
        """Set `results[key]` of each job."""
        if not jobs:
            return
        started = time.perf_counter()
        try:
            method = jobs[0].first_order.get(key) or self.heads.make(key)
            step = max(1, MAX_LOGITS // len(key.names))
            for i in range(0, len(jobs), step):
                self._predict(key, method, jobs[i : i + step])
        except InputError as error:
            for job in jobs:
                job.results[key] = HeadResult(error=error)
        milliseconds = 1000 * (time.perf_counter() - started)
        for job in jobs:
            job.results[key].milliseconds = milliseconds
        self.metrics.count_stage(key.head, milliseconds)

    def _predict(self, key: HeadKey, method: Method, jobs: Sequence[ImageJob]) -> None:
        logits = method.logits(self._encoded(method, jobs))
        top = logits.topk(min(max(job.top_k for job in jobs), len(key.names))).indices
        probabilities = method.probabilities(logits).gather(-1, top)
        for job, values, indices in zip(jobs, probabilities.tolist(), top.tolist(), strict=True):
            pairs = zip(indices[: job.top_k], values, strict=False)
            job.results[key] = HeadResult([(key.names[i], value) for i, value in pairs])

    def _encoded(self, method: Method, jobs: Sequence[ImageJob]) -> Any:
        """Return what `method.encode` would return for the images."""
        if not method.frozen_images:
            return self._stack(job.view for job in jobs if job.view is not None)
        rows = torch.stack([job.row for job in jobs if job.row is not None])
        return Encoded.from_rows(rows, self.backbone.embed_dim).to(self.backbone.device)

    def _stack(self, views: Iterable[Tensor | None]) -> Float[Tensor, "batch 3 size size"]:
        return torch.stack([view for view in views if view is not None]).to(self.backbone.device)


def _cost(key: HeadKey, jobs: Sequence[ImageJob]) -> tuple[bool, int]:
    """Return a sort key by which exact heads, which may encode text per image, come last, the largest of them at the
    very end."""
    return key.head == "exact", len(key.names) * len(jobs)
