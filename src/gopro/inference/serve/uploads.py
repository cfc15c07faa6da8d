"""What a client sends: its form, read within the limits, and its images."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import Message, Receive

from gopro.inference.serve.errors import Refusal
from gopro.inference.serve.heads import HEADS, HeadName
from gopro.inference.serve.limits import Limits

FIELDS = ("images", "classes", "top_k", "heads")
FEW = 16
"""Fields beside the class names that a form may have."""


@dataclass(frozen=True)
class Asked:
    """A request for predictions.

    Attributes:
        images: open for as long as `asked` holds them.
        names: to choose from; none for those of training.
        heads: those that are to answer, each once.
        top_k: how many names an image.
    """

    images: Sequence[UploadFile]
    names: tuple[str, ...]
    heads: tuple[HeadName, ...]
    top_k: int


@asynccontextmanager
async def asked(request: Request, limits: Limits, offered: Sequence[HeadName]) -> AsyncIterator[Asked]:
    """Reads a request's form.

    Raises:
        Refusal: it is no such form, or goes past a limit.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise Refusal(415, "not_a_form", "send multipart/form-data, with the field images: curl -F images=@a.png does")
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):  # Python has codecs that give no text
        raise Refusal(415, "not_utf_8", "send the form in UTF-8, without another charset in its Content-Type")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > limits.upload_bytes):
        raise _too_large(limits)
    limited = Request(request.scope, _counted(request.receive, limits))
    reading = limited.form(
        max_files=limits.max_images,
        max_fields=limits.max_names + FEW,
        max_part_size=4 * limits.max_name_length + 1024,
    )
    try:
        async with asyncio.timeout(limits.upload_seconds):
            form = await reading
    except TimeoutError:
        raise Refusal(
            408, "too_slow", f"the request took longer than {limits.upload_seconds} s to arrive: send less at once"
        ) from None
    except (HTTPException, FormParserError) as error:
        raise _misread(str(getattr(error, "detail", error)), limits) from error
    try:
        yield _understood(form, limits, offered)
    finally:
        await form.close()


def _counted(receive: Receive, limits: Limits) -> Receive:
    """`receive` that refuses what comes past the limit, whatever was announced."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limits.upload_bytes:
            raise _too_large(limits)
        return message

    return counted


def _too_large(limits: Limits) -> Refusal:
    return Refusal(
        413, "too_large", f"the request has more than {limits.max_upload_mib} MiB: send fewer or smaller images"
    )


def _too_many_images(limits: Limits) -> Refusal:
    return Refusal(
        422, "too_many_images", f"more than {limits.max_images} images: send the others in requests of their own"
    )


def _too_many_names(limits: Limits) -> Refusal:
    return Refusal(422, "too_many_names", f"more than {limits.max_names} class names: ask about fewer at once")


def _misread(reason: str, limits: Limits) -> Refusal:
    """What the form's parser says, as a refusal: its limits are ours."""
    if reason.startswith("Too many files"):
        return _too_many_images(limits)
    if reason.startswith("Too many fields"):
        return _too_many_names(limits)
    if reason.startswith(("Field exceeded", "Part exceeded")):
        return _too_long(limits)
    return Refusal(400, "bad_form", f"the form cannot be read ({reason.strip().rstrip('.')}): send multipart/form-data")


def _too_long(limits: Limits) -> Refusal:
    return Refusal(
        422, "name_too_long", f"a class name of more than {limits.max_name_length} characters: give a short one"
    )


def _understood(form: FormData, limits: Limits, offered: Sequence[HeadName]) -> Asked:
    """The fields by name. Raises Refusal, also for a field that nobody would look at."""
    for field in form:
        if field not in FIELDS:
            raise Refusal(422, "unknown_field", f"there is no field {_short(field)!r}: there are {', '.join(FIELDS)}")
    images = [image for image in form.getlist("images") if isinstance(image, UploadFile)]
    if len(images) < len(form.getlist("images")):
        raise Refusal(422, "not_a_file", "the field images must hold files: curl -F images=@a.png sends one")
    if not images:
        raise Refusal(422, "no_images", "there are no images: send at least one in the field images")
    return Asked(
        images=images,
        names=_names(_texts(form, "classes"), limits),
        heads=_heads(_texts(form, "heads"), offered),
        top_k=_top_k(_texts(form, "top_k")),
    )


def _texts(form: FormData, field: str) -> list[str]:
    values: list[Any] = form.getlist(field)
    if not all(isinstance(value, str) for value in values):
        raise Refusal(422, "not_a_text", f"the field {field} must hold text, not a file")
    return values


def _names(given: list[str], limits: Limits) -> tuple[str, ...]:
    if len(given) > limits.max_names:
        raise _too_many_names(limits)
    names = tuple(name.strip() for name in given)
    if "" in names:
        raise Refusal(422, "bad_class_names", "a class name is empty: give names in words, a field classes for each")
    if any(len(name) > limits.max_name_length for name in names):
        raise _too_long(limits)
    if len(set(names)) < len(names):
        twice, _ = Counter(names).most_common(1)[0]
        raise Refusal(422, "bad_class_names", f"class name {twice!r} is given twice")
    return names


def _heads(given: list[str], offered: Sequence[HeadName]) -> tuple[HeadName, ...]:
    for name in given:
        if name not in offered:
            known = "cannot be had of this run" if name in HEADS else "there is none of that name"
            raise Refusal(422, "no_such_head", f"head {_short(name)!r}: {known}; there are {', '.join(offered)}")
    return tuple(head for head in offered if head in given) or ("exact",)


def _top_k(given: list[str]) -> int:
    if not given:
        return 5
    if len(given) > 1 or not given[0].isascii() or not given[0].isdecimal() or len(given[0]) > 9 or int(given[0]) < 1:
        raise Refusal(422, "bad_top_k", f"top_k is {_short(' '.join(given))!r}: give a whole number from 1")
    return int(given[0])


def _short(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
