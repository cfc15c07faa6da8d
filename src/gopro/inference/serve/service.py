"""The answer to a prediction request: decoding, the cache of encodings, the queue, and the JSON of the results."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import UploadFile
from torch import Tensor

from gopro.data.image_file import decode
from gopro.data.transforms import make_view
from gopro.errors import InputError
from gopro.inference.serve.batched_inference import BatchedInference, HeadResult, QueuedImage
from gopro.inference.serve.batcher import Batcher
from gopro.inference.serve.concurrency import ConcurrencyLimit
from gopro.inference.serve.errors import RequestError
from gopro.inference.serve.head_builder import HeadBuilder
from gopro.inference.serve.heads import HeadKey, Heads
from gopro.inference.serve.limits import Limits
from gopro.inference.serve.lru_cache import SharedLRUCache
from gopro.inference.serve.metrics import Metrics
from gopro.inference.serve.uploads import PredictRequest
from gopro.methods.base import Method
from gopro.runs.run import Run


@dataclass
class UploadedImage:
    """An image that a client sent.

    Attributes:
        name: file name that the client gave.
        digest: hash of the file.
        view, row: see `QueuedImage`; both None if the image cannot be read.
        error: why it cannot be read.
        milliseconds: time to decode it.
    """

    name: str
    digest: bytes
    view: Tensor | None = None
    row: Tensor | None = None
    error: InputError | None = None
    milliseconds: float = 0.0


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
        names = request.names or self.names
        keys = tuple(HeadKey(head, names) for head in request.heads)
        first_order, head_errors = await self._first_order_heads(keys)
        with self.images.hold(len(request.images)):
            uploaded = await asyncio.gather(*(self._open(image, keys) for image in request.images))
            readable = [image for image in uploaded if image.error is None]
            if not readable:
                raise _unreadable(uploaded)
            answering = tuple(key for key in keys if key not in head_errors)
            queued = await self._predict(readable, answering, first_order, request.top_k)
        _check_any_answer(queued, head_errors)
        failed = {key: HeadResult(error=InputError(error.message)) for key, error in head_errors.items()}
        results = {id(upload): image.results | failed for upload, image in zip(readable, queued, strict=True)}
        batches = {image.started_at: image.encode_ms for image in queued if image.encode_ms}
        return {
            "classes": len(names),
            "results": [_image_json(upload, results.get(id(upload), {})) for upload in uploaded],
            "milliseconds": {
                "decode": round(sum(upload.milliseconds for upload in uploaded), 2),
                "queue": round(1000 * max((i.started_at - i.queued_at for i in queued), default=0.0), 2),
                "encode": round(sum(batches.values()), 2),
                "total": round(1000 * (time.perf_counter() - started), 2),
            },
        }

    async def _open(self, file: UploadFile, keys: tuple[HeadKey, ...]) -> UploadedImage:
        upload = await asyncio.get_running_loop().run_in_executor(self._decoders, self._decode, file, keys)
        self.metrics.count_image("unreadable" if upload.error else "encoded" if upload.row is None else "cached")
        self.metrics.count_stage("decode", upload.milliseconds)
        return upload

    def _decode(self, file: UploadFile, keys: tuple[HeadKey, ...]) -> UploadedImage:
        """Decode an image, unless its cached encoding is all that these heads need."""
        started = time.perf_counter()
        content = file.file.read()
        upload = UploadedImage((file.filename or "image")[:200], hashlib.blake2b(content, digest_size=16).digest())
        upload.row = self.encodings.get(upload.digest)
        needs_view = not self.run.method.frozen_images and any(key.head != "zeroshot" for key in keys)
        if upload.row is None or needs_view:
            try:
                upload.view = self._view(decode(io.BytesIO(content), upload.name, self.limits.pixels))
            except InputError as error:
                upload.error = error
            except MemoryError:
                upload.error = InputError(f"{upload.name}: not enough memory to decode it; scale it down")
        upload.milliseconds = 1000 * (time.perf_counter() - started)
        return upload

    async def _first_order_heads(
        self, keys: tuple[HeadKey, ...]
    ) -> tuple[dict[HeadKey, Method], dict[HeadKey, RequestError]]:
        """Return the first-order heads among `keys`, and errors for those that cannot be built."""
        heads: dict[HeadKey, Method] = {}
        errors: dict[HeadKey, RequestError] = {}
        for key in keys:
            if key.head == "first-order":
                try:
                    heads[key] = self.heads.cached(key) or await self.builder.head(key.names)
                except RequestError as error:
                    errors[key] = error
                except InputError as error:
                    errors[key] = RequestError(422, "no_head", str(error))
        return heads, errors

    async def _predict(
        self, uploads: list[UploadedImage], keys: tuple[HeadKey, ...], first_order: dict[HeadKey, Method], top_k: int
    ) -> list[QueuedImage]:
        """Pass the images through the queue and return them with their results."""
        loop = asyncio.get_running_loop()
        images = [QueuedImage(u.digest, u.view, u.row, keys, top_k, loop.create_future(), first_order) for u in uploads]
        if keys:
            await asyncio.gather(*map(self.batcher.put, images))
            for image in images:
                self.metrics.count_stage("queue", 1000 * (image.started_at - image.queued_at))
        return images


def _unreadable(uploads: list[UploadedImage]) -> RequestError:
    images = [{"image": upload.name, "error": str(upload.error)} for upload in uploads]
    return RequestError(422, "unreadable", images[0]["error"], images=images)


def _check_any_answer(images: list[QueuedImage], head_errors: dict[HeadKey, RequestError]) -> None:
    """Raise RequestError if no head has an answer for any image."""
    results = [result for image in images for result in image.results.values()]
    if all(result.error is not None for result in results):
        raise next(iter(head_errors.values()), None) or RequestError(422, "bad_class_names", str(results[0].error))


def _image_json(upload: UploadedImage, results: dict[HeadKey, HeadResult]) -> dict[str, Any]:
    if upload.error is not None:
        return {"image": upload.name, "error": str(upload.error)}
    return {"image": upload.name, "heads": {key.head: _head_json(result) for key, result in results.items()}}


def _head_json(result: HeadResult) -> dict[str, Any]:
    if result.error is not None:
        return {"error": str(result.error)}
    predictions = [{"name": name, "probability": round(probability, 6)} for name, probability in result.predictions]
    return {"predictions": predictions, "milliseconds": round(result.milliseconds, 2)}
