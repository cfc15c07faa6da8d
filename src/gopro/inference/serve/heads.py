"""The heads of a run over any class names, made when first asked for and cached."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from gopro.clip.backbone import Encoded
from gopro.errors import InputError
from gopro.inference.evaluate import encode_samples
from gopro.inference.serve.lru_cache import SharedLRUCache
from gopro.inference.taylor_head import TaylorHead, constant_head, fit_taylor_head
from gopro.inference.taylor_head_file import DEFAULT_ERROR, head_path, head_samples, load_head
from gopro.methods.base import Method
from gopro.methods.registry import build_method, parse_method
from gopro.methods.zeroshot import ZeroShot
from gopro.runs.run import Run

HeadName = Literal["exact", "first-order", "zeroshot"]
HEADS: tuple[HeadName, ...] = get_args(HeadName)

HELD_OUT = 64
"""Held-out images that select the terms of a first-order head and measure its error; `gopro head` takes 256, but here
a client is waiting."""


class HeadKey(NamedTuple):
    """A kind of head over a list of class names."""

    head: HeadName
    names: tuple[str, ...]


class Heads:
    """The heads of a run.

    The torch thread calls `make` and the builder's thread `build_first_order`, possibly at the same time.

    Attributes:
        available: the heads that clients may ask for. `zeroshot` is missing if the run is zero-shot CLIP itself;
            `first-order` is missing if the exact head encodes no text per image, or if the training images that it
            would be built from are gone.
    """

    def __init__(self, run: Run, max_bytes: int, max_names: int):
        """
        Args:
            max_bytes: size of the cache.
            max_names: class names that a first-order head is built for, at most.
        """
        self.run, self._max_names = run, max_names
        self._fixed_text = not run.method.text_depends_on_image
        self._cache: SharedLRUCache[HeadKey, Method] = SharedLRUCache(max_bytes, _size)
        self._samples: tuple[Encoded, Encoded] | None = None
        self.available: tuple[HeadName, ...] = tuple(head for head in HEADS if self._is_available(head))

    def _is_available(self, head: HeadName) -> bool:
        if head == "zeroshot":
            return parse_method(self.run.config.method).kind is not ZeroShot
        if head == "first-order":
            if self._fixed_text:
                return False
            if not head_path(self.run, self.run.method.classnames).is_file():
                try:
                    head_samples(self.run)
                except InputError:
                    return False
        return True

    def cached(self, key: HeadKey) -> Method | None:
        """Return the head if it is in the cache."""
        return self._cache.get(key)

    def make(self, key: HeadKey) -> Method:
        """Return an exact or zero-shot head.

        Raises:
            InputError: the method or its text tower cannot take these class names.
        """
        if (head := self._cache.get(key)) is None:
            method, names = self.run.method, key.names
            if key.head == "zeroshot":
                head = build_method("zeroshot", method.backbone, names, self.run.template).eval()
                if self.run.calibration is not None:
                    head.temperature = self.run.calibration.zeroshot_temperature
            else:
                head = constant_head(method, names) if self._fixed_text else method.for_classes(names)
            self._cache.put(key, head)
        return head

    def build_first_order(self, names: tuple[str, ...]) -> TaylorHead:
        """Return a first-order head: cached, from the run's folder, or built now, which takes seconds to minutes.

        A head that is built here is not saved: clients choose the names, and would fill the disk.

        Raises:
            InputError: there are too many names, the method cannot take them, or a training image cannot be read.
        """
        key = HeadKey("first-order", names)
        if isinstance(head := self._cache.get(key), TaylorHead):
            return head
        if head_path(self.run, names).is_file():
            head = load_head(self.run, names)
        elif len(names) > self._max_names:
            raise InputError(
                f"{len(names)} class names are too many for the fast approximation, which this server builds for up to "
                f"{self._max_names}: leave it out, or build it beforehand with gopro head"
            )
        else:
            head = fit_taylor_head(self.run.method, names, *self._encoded_samples(), error=DEFAULT_ERROR)
        self._cache.put(key, head)
        return head

    def _encoded_samples(self) -> tuple[Encoded, Encoded]:
        """Return the encoded training images that heads are built from, and the held-out ones."""
        if self._samples is None:
            training, held_out = head_samples(self.run)
            held_out = held_out[:: -(-len(held_out) // HELD_OUT)]
            device = self.run.method.backbone.device
            training, held_out = (
                encode_samples(self.run.method, samples).encoded[:].to(device) for samples in (training, held_out)
            )
            self._samples = training, held_out
        return self._samples


def _size(head: Method) -> int:
    """Estimate the bytes of a head: its tensors, and per name 2 KiB of prompt layout and 64 bytes a character."""
    tensors = list(vars(head.expansion).values()) if isinstance(head, TaylorHead) else []
    if isinstance(head, ZeroShot):
        tensors.append(head.text)
    return sum(2048 + 64 * len(name) for name in head.classnames) + sum(tensor.nbytes for tensor in tensors)
