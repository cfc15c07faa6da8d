"""From what a client asks to what it is told: decoding, the cache of encodings, the queue, and the answer."""

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
from gopro.inference.serve.batcher import Batcher
from gopro.inference.serve.concurrency import Gate
from gopro.inference.serve.errors import Refusal
from gopro.inference.serve.head_builder import Builder
from gopro.inference.serve.heads import Heads, Key
from gopro.inference.serve.inference import Engine, Item, Said
from gopro.inference.serve.limits import Limits
from gopro.inference.serve.lru import LRU
from gopro.inference.serve.metrics import Metrics
from gopro.inference.serve.uploads import Asked
from gopro.methods.base import Method
from gopro.runs.run import Run


@dataclass
class Opened:
    """An image that was sent.

    Attributes:
        name: as the client calls it.
        digest: a hash of the file.
        view, row: see `Item`; both None where it cannot be read.
        error: why it cannot.
        milliseconds: what decoding took.
    """

    name: str
    digest: bytes
    view: Tensor | None = None
    row: Tensor | None = None
    error: InputError | None = None
    milliseconds: float = 0.0


class Service:
    """A run that answers.

    Attributes:
        requests, images: what is in the house.
    """

    def __init__(self, run: Run, limits: Limits, metrics: Metrics):
        self.run, self.limits, self.metrics = run, limits, metrics
        self.names = run.method.classnames
        self.heads = Heads(run, limits.heads_mib << 20, limits.head_names)
        self.encodings: LRU[bytes, Tensor] = LRU(limits.encodings_mib << 20, lambda row: row.nbytes)
        self.engine = Engine(self.heads, self.encodings, metrics)
        self.batcher = Batcher(self.engine.answer, limits.batch)
        self.builder = Builder(self.heads.built, limits.head_builds, limits.head_seconds)
        self.requests = Gate("requests", limits.max_requests)
        self.images = Gate("images", limits.max_queue)
        self._view = make_view("eval", run.method.backbone.preprocess)
        self._decoders = ThreadPoolExecutor(min(16, os.cpu_count() or 1), "decode")
        metrics.gauge("gopro_requests_in_house", "Requests for predictions in work.", lambda: self.requests.held)
        metrics.gauge("gopro_images_in_house", "Images that wait or are in work.", lambda: self.images.held)
        metrics.gauge("gopro_encodings_bytes", "Kept of the latest images.", lambda: self.encodings.held)

    def start(self) -> None:
        """In the event loop that asks."""
        self.batcher.start()
        self.builder.start()

    def stop(self) -> None:
        """Ends the threads once what waits is done; heads that are being built are not waited for."""
        self.batcher.stop()
        self._decoders.shutdown(cancel_futures=True)

    async def answer(self, asked: Asked) -> dict[str, Any]:
        """The answer to a request, as JSON.

        Raises:
            Refusal: there is no room, no image can be read, or no head answers.
        """
        started = time.perf_counter()
        keys = tuple(Key(head, asked.names or self.names) for head in asked.heads)
        built, refused = await self._built(keys)
        with self.images.holding(len(asked.images)):
            opened = await asyncio.gather(*(self._opened(image, keys) for image in asked.images))
            readable = [image for image in opened if image.error is None]
            if not readable:
                raise _unreadable(opened)
            items = await self._answered(readable, tuple(key for key in keys if key not in refused), built, asked.top_k)
        _check_any(items, refused)
        errors = {key: Said(error=InputError(refusal.message)) for key, refusal in refused.items()}
        said = {id(image): item.said | errors for image, item in zip(readable, items, strict=True)}
        batches = {item.begun: item.encode_ms for item in items if item.encode_ms}
        return {
            "classes": len(asked.names or self.names),
            "results": [_result(image, said.get(id(image), {})) for image in opened],
            "milliseconds": {
                "decode": _rounded(sum(image.milliseconds for image in opened)),
                "queue": _rounded(1000 * max((item.begun - item.put for item in items), default=0.0)),
                "encode": _rounded(sum(batches.values())),
                "total": _rounded(1000 * (time.perf_counter() - started)),
            },
        }

    async def _opened(self, image: UploadFile, keys: tuple[Key, ...]) -> Opened:
        opened = await asyncio.get_running_loop().run_in_executor(self._decoders, self._open, image, keys)
        self.metrics.image("unreadable" if opened.error else "encoded" if opened.row is None else "cached")
        self.metrics.stage("decode", opened.milliseconds)
        return opened

    def _open(self, image: UploadFile, keys: tuple[Key, ...]) -> Opened:
        """Decodes an image, unless what the tower said of it is all that is needed, and known."""
        began = time.perf_counter()
        content = image.file.read()
        opened = Opened((image.filename or "image")[:200], hashlib.blake2b(content, digest_size=16).digest())
        opened.row = self.encodings.get(opened.digest)
        needs_view = not self.run.method.frozen_images and any(key.head != "zeroshot" for key in keys)
        if opened.row is None or needs_view:
            try:
                opened.view = self._view(decode(io.BytesIO(content), opened.name, self.limits.pixels))
            except InputError as error:
                opened.error = error
            except MemoryError:
                opened.error = InputError(f"{opened.name}: there is not enough memory to decode it; scale it down")
        opened.milliseconds = 1000 * (time.perf_counter() - began)
        return opened

    async def _built(self, keys: tuple[Key, ...]) -> tuple[dict[Key, Method], dict[Key, Refusal]]:
        """First-order heads among these, and why others cannot be had."""
        built: dict[Key, Method] = {}
        refused: dict[Key, Refusal] = {}
        for key in keys:
            if key.head == "first-order":
                try:
                    built[key] = self.heads.kept(key) or await self.builder.head(key.names)
                except Refusal as refusal:
                    refused[key] = refusal
                except InputError as error:
                    refused[key] = Refusal(422, "no_head", str(error))
        return built, refused

    async def _answered(
        self, images: list[Opened], keys: tuple[Key, ...], built: dict[Key, Method], top_k: int
    ) -> list[Item]:
        """The images with what the heads say of them."""
        loop = asyncio.get_running_loop()
        items = [Item(p.digest, p.view, p.row, keys, top_k, loop.create_future(), built) for p in images]
        if keys:
            await asyncio.gather(*map(self.batcher.put, items))
            for item in items:
                self.metrics.stage("queue", 1000 * (item.begun - item.put))
        return items


def _unreadable(opened: list[Opened]) -> Refusal:
    reasons = [{"image": image.name, "error": str(image.error)} for image in opened]
    return Refusal(422, "unreadable", reasons[0]["error"], images=reasons)


def _check_any(items: list[Item], refused: dict[Key, Refusal]) -> None:
    """Raises Refusal where no head answered."""
    said = [answer for item in items for answer in item.said.values()]
    if all(answer.error is not None for answer in said):
        raise next(iter(refused.values()), None) or Refusal(422, "bad_class_names", str(said[0].error))


def _result(image: Opened, said: dict[Key, Said]) -> dict[str, Any]:
    if image.error is not None:
        return {"image": image.name, "error": str(image.error)}
    return {"image": image.name, "heads": {key.head: _head(answer) for key, answer in said.items()}}


def _head(said: Said) -> dict[str, Any]:
    if said.error is not None:
        return {"error": str(said.error)}
    predictions = [{"name": name, "probability": round(value, 6)} for name, value in said.likeliest]
    return {"predictions": predictions, "milliseconds": _rounded(said.milliseconds)}


def _rounded(milliseconds: float) -> float:
    return round(milliseconds, 2)
