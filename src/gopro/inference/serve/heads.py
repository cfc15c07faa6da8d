"""Heads over any class names: made when they are first asked for, kept while they are used."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from gopro.clip.backbone import Encoded
from gopro.errors import InputError
from gopro.inference.evaluate import encode_samples, text_depends_on_image
from gopro.inference.serve.lru import LRU
from gopro.inference.taylor_head import TaylorHead, constant_head, fit_taylor_head
from gopro.inference.taylor_head_file import DEFAULT_ERROR, head_path, head_samples, load_head
from gopro.methods.base import Method
from gopro.methods.registry import build_method, parse_method
from gopro.methods.zeroshot import ZeroShot
from gopro.runs.run import Run

HeadName = Literal["exact", "first-order", "zeroshot"]
HEADS: tuple[HeadName, ...] = get_args(HeadName)

HELD_OUT = 64
"""Images that the terms of a first-order head are chosen with and its agreement is measured on: fewer than
`gopro head` takes, as somebody waits for it."""


class Key(NamedTuple):
    """A head over a list of class names."""

    head: HeadName
    names: tuple[str, ...]


class Heads:
    """The heads of a run.

    `made` is for the thread that answers, `built` for the one that builds; both may work at once.

    Attributes:
        offered: those that can be had: `zeroshot` is frozen CLIP with the data set's template, there is none where the
            run is that itself; there is no first-order head where the exact one encodes no text for an image, or
            where the training images that it is built of are gone.
    """

    def __init__(self, run: Run, most: int, head_names: int):
        """
        Args:
            most: bytes that the heads may take together.
            head_names: most class names that a first-order head is built for.
        """
        self.run, self._head_names = run, head_names
        self._shared = not text_depends_on_image(run.method)
        self._kept: LRU[Key, Method] = LRU(most, _size)
        self._grounds: tuple[Encoded, Encoded] | None = None
        self.offered: tuple[HeadName, ...] = tuple(head for head in HEADS if self._can(head))

    def _can(self, head: HeadName) -> bool:
        if head == "zeroshot":
            return parse_method(self.run.config.method)[0] is not ZeroShot
        if head == "first-order":
            if self._shared:
                return False
            if not head_path(self.run, self.run.method.classnames).is_file():
                try:
                    head_samples(self.run)
                except InputError:
                    return False
        return True

    def kept(self, key: Key) -> Method | None:
        """The head, if there is one already."""
        return self._kept.get(key)

    def made(self, key: Key) -> Method:
        """An exact or zero-shot head.

        Raises:
            InputError: names that the method or its text tower cannot take.
        """
        if (head := self._kept.get(key)) is None:
            method, names = self.run.method, key.names
            if key.head == "zeroshot":
                head = build_method("zeroshot", method.backbone, names, self.run.template).eval()
            else:
                head = constant_head(method, names) if self._shared else method.for_classes(names)
            self._kept.put(key, head)
        return head

    def built(self, names: tuple[str, ...]) -> TaylorHead:
        """A first-order head: the one in the run's folder, or built now, which takes seconds. Nothing is written.

        Raises:
            InputError: too many names, or some that the method cannot take; training images that cannot be had.
        """
        key = Key("first-order", names)
        if isinstance(head := self._kept.get(key), TaylorHead):
            return head
        if head_path(self.run, names).is_file():
            head = load_head(self.run, names)
        elif len(names) > self._head_names:
            raise InputError(
                f"a first-order head of {len(names)} class names takes too long to wait for, this server builds them "
                f"up to {self._head_names}: build it beforehand with gopro head, or ask the exact head"
            )
        else:
            head = fit_taylor_head(self.run.method, names, *self._encoded_grounds(), error=DEFAULT_ERROR)
        self._kept.put(key, head)
        return head

    def _encoded_grounds(self) -> tuple[Encoded, Encoded]:
        """What heads are built from, and what is held out, through the image tower or out of the feature store."""
        if self._grounds is None:
            seen, held_out = head_samples(self.run)
            held_out = held_out[:: -(-len(held_out) // HELD_OUT)]
            device = self.run.method.backbone.device
            seen, held_out = (encode_samples(self.run.method, s).encoded[:].to(device) for s in (seen, held_out))
            self._grounds = seen, held_out
        return self._grounds


def _size(head: Method) -> int:
    """About how many bytes it takes: the layout of its prompts, and its tensors."""
    tensors = list(vars(head.expansion).values()) if isinstance(head, TaylorHead) else []
    if isinstance(head, ZeroShot):
        tensors.append(head.text)
    names = sum(2048 + 64 * len(name) for name in head.classnames)
    return names + sum(tensor.nbytes for tensor in tensors)
