"""What the frozen image tower says of views of images: taken from the feature store, and encoded where it is missing.

A view is known by the image's content, its name and the number of its draw, which also seed it: draw 3 of an image's
`base` view is the same in every run.
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
from gopro.clip.feature_store import FeatureStore, Places
from gopro.data.dataset import ImageSource
from gopro.data.loader import DrawnView, ViewSettings, view_batches
from gopro.data.transforms import CROP, VIEW_VERSION, ViewName
from gopro.errors import InputError

FLUSH_ROWS, FLUSH_SECONDS = 4096, 60.0
"""What is encoded is written after so many views or so long, whichever comes first."""


class ViewRequest(NamedTuple):
    """A view of an image; `draw` counts the random ones from 0."""

    image: ImageSource
    view: ViewName
    draw: int = 0


class Features:
    """What the frozen tower says of views, [n], read from the store as they are asked for."""

    def __init__(self, store: FeatureStore, places: Places):
        self.store, self.places = store, places

    def __len__(self) -> int:
        return len(self.places.rows)

    def __getitem__(self, index: slice | Tensor) -> Encoded:
        """Of some of them, in fp32 and main memory; an index tensor may have any shape."""
        if isinstance(index, slice):
            return self._encoded(self.places[index])
        return self._encoded(self.places[index.flatten().numpy()]).unflatten(*index.shape)

    def _encoded(self, places: Places) -> Encoded:
        kept = Encoded.from_rows(self.store.take(places).float(), self.store.backbone.embed_dim)
        return Encoded(F.normalize(kept.embedding, dim=-1), kept.mean, kept.std)  # unit again


def encode_views(
    store: FeatureStore,
    wanted: Sequence[ViewRequest],
    *,
    crop: float = CROP,
    batch: int = 64,
    workers: int = 0,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Features:
    """Views of images as the store's backbone sees them, under the caller's autocast, rounded to half precision.

    Only images of which a view is missing are opened. What is encoded is kept as it comes, so that a run that is cut
    off loses a minute of it at most.

    Args:
        crop: of the random views, see `gopro.data.transforms.make_view`.
        on_progress: told how many more views are there, those found among them.

    Raises:
        InputError: an image that cannot be read; values that half precision cannot hold.
    """
    images = {id(want.image): want.image for want in wanted}
    with ThreadPoolExecutor(8) as pool:  # reading files is waiting
        digests = dict(zip(images, pool.map(lambda image: image.digest(), images.values()), strict=True))
    common = _common(store.backbone)
    keys = [_key(common, digests[id(want.image)], want.view, want.draw, crop) for want in wanted]
    found = store.find(keys)
    missing: dict[bytes, DrawnView] = {}
    for at in np.flatnonzero(found.segments < 0).tolist():
        image, view, draw = wanted[at]
        missing.setdefault(keys[at], DrawnView(image, view, digests[id(image)], draw))
    on_progress(len(wanted) - len(missing))
    if missing:
        _fill(store, missing, crop, batch, workers, on_progress)
        found = store.find(keys)
    return Features(store, found)


def _common(backbone: Backbone) -> bytes:
    """What all views of a call share and their values depend on; the weights name the store's folder."""
    device = backbone.device.type
    precision = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else torch.float32
    return repr((VIEW_VERSION, backbone.preprocess, precision)).encode()


def _key(common: bytes, digest: str, view: ViewName, draw: int, crop: float) -> bytes:
    drawn = "" if view == "eval" else f"{draw}/{crop:g}"
    return hashlib.blake2b(common + f"{digest}/{view}/{drawn}".encode(), digest_size=16).digest()


def _fill(
    store: FeatureStore,
    missing: dict[bytes, DrawnView],
    crop: float,
    batch: int,
    workers: int,
    on_progress: Callable[[int], None],
) -> None:
    backbone, keys = store.backbone, list(missing)
    rows: list[np.ndarray] = []
    kept, since = 0, time.monotonic()
    try:
        settings = ViewSettings(backbone.preprocess, crop, workers=workers)
        for images in view_batches(list(missing.values()), settings, batch):
            rows.append(_half(backbone, backbone.encode(images.to(backbone.device))).cpu().numpy())
            on_progress(len(images))
            if sum(map(len, rows)) >= FLUSH_ROWS or time.monotonic() - since >= FLUSH_SECONDS:
                kept, since = _put(store, keys, kept, rows), time.monotonic()
    finally:  # also what was done before an image that cannot be read, or a Ctrl-C
        _put(store, keys, kept, rows)


def _put(store: FeatureStore, keys: list[bytes], kept: int, rows: list[np.ndarray]) -> int:
    """Keeps the rows, of the keys from `kept` on, and empties their list. Returns how many are kept now."""
    if rows:
        done = kept + sum(map(len, rows))
        store.put(keys[kept:done], torch.from_numpy(np.concatenate(rows)))  # torch.cat minds the caller's autocast
        rows.clear()
        kept = done
    return kept


def _half(backbone: Backbone, encoded: Encoded) -> Float16[Tensor, "batch width"]:
    rows = encoded.rows().half()
    if not rows.isfinite().all():
        raise InputError(
            f"backbone {backbone.name!r} gives numbers for an image that are not finite or above 65504: "
            "its features cannot be kept in half precision; use another backbone"
        )
    return rows
