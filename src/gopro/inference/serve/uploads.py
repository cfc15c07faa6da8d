"""The form of a prediction request, read within the limits."""

from __future__ import annotations

import asyncio
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

from gopro.data.class_names import clean_names
from gopro.errors import InputError
from gopro.inference.serve.errors import RequestError
from gopro.inference.serve.heads import HEADS, HeadName
from gopro.inference.serve.limits import Limits
from gopro.methods.base import check_repeated

FIELDS = ("images", "classes", "top_k", "heads")
OTHER_FIELDS = 16
"""Fields of a form besides the class names, at most."""


@dataclass(frozen=True)
class PredictRequest:
    """A request for predictions.

    Attributes:
        images: files, open while the block of `read_form` runs.
        names: class names to choose from; empty for those of the run.
        heads: heads to ask, without duplicates.
        top_k: predictions per image.
    """

    images: Sequence[UploadFile]
    names: tuple[str, ...]
    heads: tuple[HeadName, ...]
    top_k: int


@asynccontextmanager
async def read_form(
    request: Request, limits: Limits, available: Sequence[HeadName], trained: Sequence[str]
) -> AsyncIterator[PredictRequest]:
    """Read the form of a request.

    Args:
        available: the heads that the server has.
        trained: the class names of the run.

    Raises:
        RequestError: the body is not a form, takes too long to arrive, exceeds a limit or has a bad field.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        message = "send multipart/form-data with image files in the field images, as curl -F images=@a.png does"
        raise RequestError(415, "not_a_form", message)
    charset = parse_options_header(request.headers["content-type"])[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):  # the parser would look up any codec of Python, some not of text
        raise RequestError(415, "not_utf_8", "send the form in UTF-8, without another charset in its Content-Type")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and (len(length) > 18 or int(length) > limits.upload_bytes):
        raise _too_large(limits)
    reading = Request(request.scope, _limit_bytes(request.receive, limits)).form(
        max_files=limits.max_images,
        max_fields=limits.max_names + OTHER_FIELDS,
        max_part_size=4 * limits.max_name_length + 1024,  # 4 bytes per character of UTF-8
    )
    try:
        async with asyncio.timeout(limits.upload_seconds):
            form = await reading
    except TimeoutError:
        message = f"the request took longer than {limits.upload_seconds} s to arrive: send fewer or smaller images"
        raise RequestError(408, "too_slow", message) from None
    except (HTTPException, FormParserError) as error:
        raise _parser_error(str(getattr(error, "detail", error)), limits) from error
    try:
        yield _parse_fields(form, limits, available, trained)
    finally:
        await form.close()


def _limit_bytes(receive: Receive, limits: Limits) -> Receive:
    """Return a `receive` that stops at the limit: a chunked request announces no length."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limits.upload_bytes:
            raise _too_large(limits)
        return message

    return limited


def _too_large(limits: Limits) -> RequestError:
    message = f"the request is larger than {limits.max_upload_mib} MiB: send fewer or smaller images"
    return RequestError(413, "too_large", message)


def _too_many_names(limits: Limits) -> RequestError:
    return RequestError(422, "too_many_names", f"more than {limits.max_names} class names: send fewer per request")


def _name_too_long(limits: Limits) -> RequestError:
    message = f"a class name has more than {limits.max_name_length} characters: shorten it"
    return RequestError(422, "name_too_long", message)


def _parser_error(reason: str, limits: Limits) -> RequestError:
    """Translate the message of Starlette's form parser, which applies our limits."""
    if reason.startswith("Too many files"):
        return RequestError(422, "too_many_images", f"more than {limits.max_images} images: send fewer per request")
    if reason.startswith("Too many fields"):
        return _too_many_names(limits)
    if reason.startswith(("Field exceeded", "Part exceeded")):
        return _name_too_long(limits)
    message = f"the form cannot be read ({reason.strip().rstrip('.')}): send multipart/form-data"
    return RequestError(400, "bad_form", message)


def _parse_fields(
    form: FormData, limits: Limits, available: Sequence[HeadName], trained: Sequence[str]
) -> PredictRequest:
    for field in form:
        if field not in FIELDS:
            message = f"unknown field {_shorten(field)!r}: the fields are {', '.join(FIELDS)}"
            raise RequestError(422, "unknown_field", message)
    images = [image for image in form.getlist("images") if isinstance(image, UploadFile)]
    if len(images) < len(form.getlist("images")):
        raise RequestError(422, "not_a_file", "the field images must be a file: curl -F images=@a.png sends one")
    if not images:
        raise RequestError(422, "no_images", "no images: send at least one file in the field images")
    return PredictRequest(
        images=images,
        names=_parse_names(_texts(form, "classes"), limits, trained),
        heads=_parse_heads(_texts(form, "heads"), available),
        top_k=_parse_top_k(_texts(form, "top_k")),
    )


def _texts(form: FormData, field: str) -> list[str]:
    values: list[Any] = form.getlist(field)
    if not all(isinstance(value, str) for value in values):
        raise RequestError(422, "not_a_text", f"the field {field} must be text, not a file")
    return values


def _parse_names(values: list[str], limits: Limits, trained: Sequence[str]) -> tuple[str, ...]:
    if len(values) > limits.max_names:
        raise _too_many_names(limits)
    if not values:
        return ()
    if any(len(name.strip()) > limits.max_name_length for name in values):
        raise _name_too_long(limits)
    try:
        names = clean_names(values)
        check_repeated(names, trained)
    except InputError as error:
        raise RequestError(422, "bad_class_names", f"{error} (one name per field classes)") from error
    return tuple(names)


def _parse_heads(values: list[str], available: Sequence[HeadName]) -> tuple[HeadName, ...]:
    for name in values:
        if name not in available:
            problem = "is not available for this run" if name in HEADS else "does not exist"
            message = f"head {_shorten(name)!r} {problem}: choose from {', '.join(available)}"
            raise RequestError(422, "no_such_head", message)
    return tuple(head for head in available if head in values) or ("exact",)


def _parse_top_k(values: list[str]) -> int:
    if not values:
        return 5
    [text, *more] = values
    if more or not (text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) >= 1):
        message = f"top_k is {_shorten(' '.join(values))!r}: give one whole number of at least 1"
        raise RequestError(422, "bad_top_k", message)
    return int(text)


def _shorten(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:80]}…"
