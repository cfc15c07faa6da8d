"""The answer to a prediction request: decoding, the cache of encodings, the queue, and the JSON of the results."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.datastructures import UploadFile
from torch import Tensor

from gopro.data.images.image_file import decode
from gopro.data.images.transforms import make_view
from gopro.errors import InputError
from gopro.inference.serve.batched_inference import BatchedInference, HeadResult, ImageJob
from gopro.inference.serve.batcher import Batcher
from gopro.inference.serve.concurrency import ConcurrencyLimit
from gopro.inference.serve.errors import RequestError
from gopro.inference.serve.head_builder import HeadBuilder
from gopro.inference.serve.heads import HeadKey, HeadName, Heads
from gopro.inference.serve.limits import Limits
from gopro.inference.serve.lru_cache import SharedLRUCache
from gopro.inference.serve.metrics import Metrics
from gopro.inference.serve.uploads import PredictRequest
from gopro.methods.base import Method
from gopro.runs.run import Run


class Service:
    """A run that answers prediction requests.

    Attributes:
        requests, images: what is in progress.
    """

    def __init__(self, run: Run, limits: Limits, metrics: Metrics):
        self.run, self.limits, self.metrics = run, limits, metrics
        self.names = run.method.classnames
        self.heads = Heads(run, limits.heads_mib << 20, limits.head_names)
        self.encodings: SharedLRUCache[bytes, Tensor] = SharedLRUCache(
            limits.encodings_mib << 20, lambda row: row.nbytes
        )
        self.batcher = Batcher(BatchedInference(self.heads, self.encodings, metrics).run, limits.batch)
        self.builder = HeadBuilder(self.heads.build_first_order, limits.head_builds, limits.head_seconds)
        self.requests = ConcurrencyLimit("requests", limits.max_requests)
        self.images = ConcurrencyLimit("images", limits.max_queue)
        self._view = make_view("eval", run.method.backbone.preprocess)
        self._decoders = ThreadPoolExecutor(min(16, os.cpu_count() or 1), "decode")
        metrics.add_gauge(
            "gopro_requests_in_progress", "Prediction requests in progress.", lambda: self.requests.in_progress
        )
        metrics.add_gauge(
            "gopro_images_in_progress", "Images waiting or being processed.", lambda: self.images.in_progress
        )
        metrics.add_gauge("gopro_encodings_bytes", "Size of cached image encodings.", lambda: self.encodings.currsize)

    def start(self) -> None:
        """Start the threads; call this in the event loop that will await `answer`."""
        self.batcher.start()
        self.builder.start()

    def stop(self) -> None:
        """End the threads once the queue of images is empty, without waiting for heads that are being built."""
        self.batcher.stop()
        self._decoders.shutdown(cancel_futures=True)

    async def answer(self, request: PredictRequest) -> dict[str, Any]:
        """Answer a request with the JSON that `schemas.PredictResponse` describes.

        Raises:
            RequestError: too many images are in progress, no image can be read, or no head can answer.
        """
        started = time.perf_counter()
        names, loop = request.names or self.names, asyncio.get_running_loop()
        first_order, head_errors = await self._first_order_heads(names, request.heads)
        heads = tuple(key for head in request.heads if (key := HeadKey(head, names)) not in head_errors)
        jobs = [
            ImageJob((file.filename or "image")[:200], heads, first_order, request.top_k, loop.create_future())
            for file in request.images
        ]
        with self.images.hold(len(jobs)):
            await asyncio.gather(*map(self._open, jobs, request.images))
            readable = [job for job in jobs if job.error is None]
            if not readable:
                images = [{"image": job.name, "error": str(job.error)} for job in jobs]
                raise RequestError(422, "unreadable", images[0]["error"], images=images)
            if heads:
                await asyncio.gather(*map(self.batcher.put, readable))
                for job in readable:
                    self.metrics.count_stage("queue", 1000 * (job.started_at - job.queued_at))
        for job in readable:
            job.results |= {key: HeadResult(error=InputError(error.message)) for key, error in head_errors.items()}
        errors = [result.error for job in readable for result in job.results.values()]
        if None not in errors:  # no head has an answer for any image
            raise next(iter(head_errors.values()), None) or RequestError(422, "bad_class_names", str(errors[0]))
        encode_ms = {job.started_at: job.encode_ms for job in readable if job.encode_ms}  # one entry per batch
        return {
            "classes": len(names),
            "results": [_image_json(job) for job in jobs],
            "milliseconds": {
                "decode": round(sum(job.decode_ms for job in jobs), 2),
                "queue": round(1000 * max(job.started_at - job.queued_at for job in readable), 2),
                "encode": round(sum(encode_ms.values()), 2),
                "total": round(1000 * (time.perf_counter() - started), 2),
            },
        }

    async def _first_order_heads(
        self, names: tuple[str, ...], heads: tuple[HeadName, ...]
    ) -> tuple[dict[HeadKey, Method], dict[HeadKey, RequestError]]:
        """Return the first-order head if it is among `heads`, or the error if it cannot be built."""
        key = HeadKey("first-order", names)
        if key.head not in heads:
            return {}, {}
        try:
            return {key: self.heads.cached(key) or await self.builder.head(names)}, {}
        except RequestError as error:
            return {}, {key: error}
        except InputError as error:
            return {}, {key: RequestError(422, "no_head", str(error))}

    async def _open(self, job: ImageJob, file: UploadFile) -> None:
        """Decode an image in one of the decoding threads."""
        await asyncio.get_running_loop().run_in_executor(self._decoders, self._decode, job, file)
        self.metrics.count_image("unreadable" if job.error else "encoded" if job.row is None else "cached")
        self.metrics.count_stage("decode", job.decode_ms)

    def _decode(self, job: ImageJob, file: UploadFile) -> None:
        """Set `view`, unless the cached encoding is all that the heads need, or `error`."""
        started = time.perf_counter()
        content = file.file.read()
        job.digest = hashlib.blake2b(content, digest_size=16).digest()
        job.row = self.encodings.get(job.digest)
        needs_view = not self.run.method.frozen_images and any(key.head != "zeroshot" for key in job.heads)
        if job.row is None or needs_view:
            try:
                job.view = self._view(decode(io.BytesIO(content), job.name, self.limits.pixels, self.run.config.levels))
            except InputError as error:
                job.error = error
            except MemoryError:
                job.error = InputError(f"{job.name}: not enough memory to decode it; scale it down")
        job.decode_ms = 1000 * (time.perf_counter() - started)


def _image_json(job: ImageJob) -> dict[str, Any]:
    if job.error is not None:
        return {"image": job.name, "error": str(job.error)}
    return {"image": job.name, "heads": {key.head: _head_json(result) for key, result in job.results.items()}}


def _head_json(result: HeadResult) -> dict[str, Any]:
    if result.error is not None:
        return {"error": str(result.error)}
    predictions = [{"name": name, "probability": round(probability, 6)} for name, probability in result.predictions]
    return {"predictions": predictions, "milliseconds": round(result.milliseconds, 2)}
