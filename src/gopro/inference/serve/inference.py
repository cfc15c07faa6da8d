"""Images of all requests through the image tower together, and what the heads say of them. One thread calls it."""

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
from gopro.inference.serve.heads import Heads, Key
from gopro.inference.serve.lru import LRU
from gopro.inference.serve.metrics import Metrics
from gopro.methods.base import Method

PAIRS = 4096
"""Images times class names whose logits are made at once, so that memory does not grow with either."""


@dataclass
class Said:
    """What one head says of an image.

    Attributes:
        likeliest: (name, probability), likeliest first.
        error: why it says nothing.
        milliseconds: what it took for all images of the batch with these names.
    """

    likeliest: list[tuple[str, float]] = field(default_factory=list)
    error: InputError | None = None
    milliseconds: float = 0.0


@dataclass(eq=False)
class Item:
    """An image of a request on its way.

    Attributes:
        digest: a hash of the file.
        view: what the image tower takes; None where `row` is enough.
        row: what the frozen image tower said of it (`Encoded.rows`), if that is known.
        asked: the heads that are to answer.
        built: first-order heads among them, by key.
        top_k: how many names are wanted.
        answered: set in the event loop, to this item itself.
        put: when it was put in the queue, in seconds of `time.perf_counter`.
        begun: when its batch was begun.
        encode_ms: milliseconds of the image tower for its batch; 0 where it took no part.
        said: by key.
    """

    digest: bytes
    view: Float[Tensor, "3 size size"] | None
    row: Float[Tensor, " width"] | None
    asked: tuple[Key, ...]
    top_k: int
    answered: asyncio.Future[Item]
    built: dict[Key, Method] = field(default_factory=dict)
    put: float = 0.0
    begun: float = 0.0
    encode_ms: float = 0.0
    said: dict[Key, Said] = field(default_factory=dict)


class Engine:
    """The image tower and the heads at work.

    Attributes:
        encodings: what the frozen image tower said of the latest images, by digest.
    """

    def __init__(self, heads: Heads, encodings: LRU[bytes, Tensor], metrics: Metrics):
        self.heads, self.encodings, self.metrics = heads, encodings, metrics
        self.backbone = heads.run.method.backbone

    @torch.no_grad()
    def answer(self, items: Sequence[Item], done: Callable[[list[Item]], None]) -> None:
        """Answers a batch, cheap heads first.

        A head that cannot take its class names says so to those who asked it; no other is touched by that.

        Args:
            done: called with items as soon as all that they asked is said.
        """
        begun = time.perf_counter()
        for item in items:
            item.begun = begun
        self._encode([item for item in items if item.row is None and self._wants_row(item)])
        groups: dict[Key, list[Item]] = {}
        for item in items:
            for key in item.asked:
                groups.setdefault(key, []).append(item)
        for key, members in sorted(groups.items(), key=lambda group: _cost(*group)):
            self._say(key, [item for item in members if not item.answered.cancelled()])
            done([item for item in members if len(item.said) == len(item.asked)])

    def _wants_row(self, item: Item) -> bool:
        return any(key.head == "zeroshot" or self.heads.run.method.frozen_images for key in item.asked)

    def _encode(self, items: Sequence[Item]) -> None:
        """Gives the items their rows; the same image goes through the tower once."""
        views = {item.digest: item.view for item in items if item.view is not None}
        if not views:
            return
        began = time.perf_counter()
        rows = self.backbone.encode(self._stacked(views.values())).rows().cpu()
        milliseconds = 1000 * (time.perf_counter() - began)
        known = {digest: row.clone() for digest, row in zip(views, rows, strict=True)}
        for digest, row in known.items():
            self.encodings.put(digest, row)
        for item in items:
            item.row, item.encode_ms = known[item.digest], milliseconds
        self.metrics.tower(len(views), milliseconds)

    def _say(self, key: Key, items: Sequence[Item]) -> None:
        """What a head says of images."""
        if not items:
            return
        began = time.perf_counter()
        try:
            method = items[0].built.get(key) or self.heads.made(key)
            step = max(1, PAIRS // len(key.names))
            for i in range(0, len(items), step):
                self._predict(key, method, items[i : i + step])
        except InputError as error:
            for item in items:
                item.said[key] = Said(error=error)
        milliseconds = 1000 * (time.perf_counter() - began)
        for item in items:
            item.said[key].milliseconds = milliseconds
        self.metrics.stage(key.head, milliseconds)

    def _predict(self, key: Key, method: Method, items: Sequence[Item]) -> None:
        probabilities = method.logits(self._taken_by(method, items)).float().softmax(dim=-1)
        most = min(max(item.top_k for item in items), len(key.names))
        top = probabilities.topk(most)
        for item, values, indices in zip(items, top.values.tolist(), top.indices.tolist(), strict=True):
            pairs = zip(indices[: item.top_k], values, strict=False)
            item.said[key] = Said([(key.names[i], value) for i, value in pairs])

    def _taken_by(self, method: Method, items: Sequence[Item]) -> Any:
        """The items as the method's `encode` would give them."""
        if not method.frozen_images:
            return self._stacked(item.view for item in items if item.view is not None)
        rows = torch.stack([item.row for item in items if item.row is not None])
        return Encoded.from_rows(rows, self.backbone.embed_dim).to(self.backbone.device)

    def _stacked(self, views: Iterable[Tensor | None]) -> Float[Tensor, "batch 3 size size"]:
        return torch.stack([view for view in views if view is not None]).to(self.backbone.device)


def _cost(key: Key, items: Sequence[Item]) -> tuple[bool, int]:
    """By which heads take turns: those that encode text for each image last, the most of it at the very end."""
    return key.head == "exact", len(key.names) * len(items)
