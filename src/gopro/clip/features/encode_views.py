"""Features of views of images: read from the feature store, encoded if they are missing there.

A view is identified by the image's content, the view's name and the number of its draw, which also seed it: draw 3 of
an image's `base` view is the same in every run.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float16
from torch import Tensor

from gopro.clip.backbone import Backbone, Encoded
from gopro.clip.features.store import FeatureStore, RowLocations
from gopro.clip.weights.embedded import EMBEDDED
from gopro.data.dataset import ImageSource
from gopro.data.images.loader import DrawnView, ViewSettings, view_batches
from gopro.data.images.transforms import CROP, VIEW_VERSION, ViewName
from gopro.errors import InputError

FLUSH_ROWS, FLUSH_SECONDS = 4096, 60.0
"""New features are written after this many views or seconds, whichever comes first."""


class ViewRequest(NamedTuple):
    """A view of an image; `draw` numbers the draws of a random view from 0."""

    image: ImageSource
    view: ViewName
    draw: int = 0


class Features:
    """Features of n views, read from the store when they are indexed."""

    def __init__(self, store: FeatureStore, locations: RowLocations):
        self.store, self.locations = store, locations

    def __len__(self) -> int:
        return len(self.locations.rows)

    def __getitem__(self, index: slice | Tensor) -> Encoded:
        """Return some of them in fp32 and main memory; an index tensor may have any shape."""
        if isinstance(index, slice):
            return self._read(self.locations[index])
        return self._read(self.locations[index.flatten().numpy()]).unflatten(*index.shape)

    def _read(self, locations: RowLocations) -> Encoded:
        stored = Encoded.from_rows(self.store.read(locations).float(), self.store.backbone.embed_dim)
        embedding = F.normalize(stored.embedding, dim=-1)  # rounding to half precision changed its length
        return Encoded(embedding, stored.mean, stored.std)


def encode_views(
    store: FeatureStore,
    requests: Sequence[ViewRequest],
    *,
    crop: float = CROP,
    batch: int = 64,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda views: None,
) -> Features:
    """Return the features of views, rounded to half precision, by the store's backbone under the caller's autocast.

    Only images with a missing view are opened. New features are written as they are computed, so that an interrupted
    run loses a minute of them at most.

    Args:
        crop: the crop of random views, see `gopro.data.images.transforms.make_view`.
        on_progress: called with the number of views that have become ready, first with those from the store.

    Raises:
        InputError: an image cannot be read; a feature is beyond half precision.
    """
    images = {id(request.image): request.image for request in requests}
    with ThreadPoolExecutor(8) as pool:  # reading files is mostly waiting
        digests = dict(zip(images, pool.map(lambda image: image.digest(), images.values()), strict=True))
    conditions = _conditions(store.backbone)
    keys = [_key(conditions, digests[id(request.image)], request, crop) for request in requests]
    located = store.locate(keys)
    missing: dict[bytes, DrawnView] = {}
    for at in np.flatnonzero(located.segments < 0).tolist():
        image, view, draw = requests[at]
        missing.setdefault(keys[at], DrawnView(image, view, digests[id(image)], draw))
    on_progress(len(requests) - len(missing))
    if missing:
        _encode_missing(store, missing, crop, batch, workers, on_progress)
        located = store.locate(keys)
    return Features(store, located)


def _conditions(backbone: Backbone) -> bytes:
    """Return the settings that all features depend on, besides the weights, which name the store's folder."""
    device = backbone.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    # The same weights give other features with another activation. Stores of earlier versions do not say which one it
    # was; those of the packaged models, which have only one, and of weights that need QuickGELU are still read.
    marked = backbone.name not in EMBEDDED and not backbone.quick_gelu and hasattr(backbone.model.visual, "transformer")
    gelu = ("gelu",) if marked else ()
    return repr((VIEW_VERSION, backbone.preprocess, precision, *gelu)).encode()


def _key(conditions: bytes, digest: str, request: ViewRequest, crop: float) -> bytes:
    drawn = "" if request.view == "eval" else f"{request.draw}/{crop:g}"
    return hashlib.blake2b(conditions + f"{digest}/{request.view}/{drawn}".encode(), digest_size=16).digest()


def _encode_missing(
    store: FeatureStore,
    missing: dict[bytes, DrawnView],
    crop: float,
    batch: int,
    workers: int,
    on_progress: Callable[[int], None],
) -> None:
    backbone, keys = store.backbone, list(missing)
    rows: list[np.ndarray] = []
    written, since = 0, time.monotonic()
    try:
        settings = ViewSettings(backbone.preprocess, crop, workers=workers)
        for images in view_batches(list(missing.values()), settings, batch):
            rows.append(_half(backbone, backbone.encode(images.to(backbone.device))).numpy())
            on_progress(len(images))
            if sum(map(len, rows)) >= FLUSH_ROWS or time.monotonic() - since >= FLUSH_SECONDS:
                written, since = _flush(store, keys, written, rows), time.monotonic()
    finally:  # also after an image that cannot be read, or Ctrl-C
        _flush(store, keys, written, rows)


def _flush(store: FeatureStore, keys: list[bytes], written: int, rows: list[np.ndarray]) -> int:
    """Write rows, whose keys start at `written`, and empty their list; return how many are written now."""
    if not rows:
        return written
    end = written + sum(map(len, rows))
    store.write(keys[written:end], torch.from_numpy(np.concatenate(rows)))  # torch.cat would obey autocast
    rows.clear()
    return end


def _half(backbone: Backbone, encoded: Encoded) -> Float16[Tensor, "batch width"]:
    rows = encoded.rows().half().cpu()  # before the check, which on an accelerator would wait for it a second time
    if not rows.isfinite().all():
        raise InputError(
            f"backbone {backbone.name!r} gives features of an image that are not finite or above 65504, which half "
            "precision cannot hold; use another backbone"
        )
    return rows
