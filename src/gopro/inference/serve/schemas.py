"""What is sent and what is answered, for /openapi.json."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gopro.inference.serve.limits import Limits


class Prediction(BaseModel):
    name: str
    probability: float


class HeadAnswer(BaseModel):
    """What a head says of an image, or why it says nothing; `milliseconds` is for all images of the batch."""

    predictions: list[Prediction] = []
    milliseconds: float | None = None
    error: str | None = None


class ImageAnswer(BaseModel):
    """What is said of an image, or why it cannot be read."""

    image: str
    heads: dict[str, HeadAnswer] = {}
    error: str | None = None


class Milliseconds(BaseModel):
    decode: float
    queue: float
    encode: float
    total: float


class Answer(BaseModel):
    """`classes` says among how many names was chosen."""

    classes: int
    results: list[ImageAnswer]
    milliseconds: Milliseconds


class About(BaseModel):
    classes: list[str]
    method: str
    data: str
    backbone: str
    heads: list[str]
    limits: dict[str, int]
    key_needed: bool


class SampleName(BaseModel):
    name: str
    label: str


class Health(BaseModel):
    status: str


class ErrorDetail(BaseModel):
    code: str
    message: str


class Error(BaseModel):
    error: ErrorDetail


REFUSED: dict[int | str, dict[str, Any]] = {
    status: {"model": Error} for status in (400, 401, 404, 405, 408, 413, 415, 422, 503)
}


def predict_form(limits: Limits, heads: list[str]) -> dict[str, Any]:
    """The form of POST /predict, in OpenAPI's words."""
    text = {"type": "string"}
    properties = {
        "images": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "maxItems": limits.max_images,
            "description": "ImageSource files, a field for each.",
        },
        "classes": {
            "type": "array",
            "items": {**text, "maxLength": limits.max_name_length},
            "maxItems": limits.max_names,
            "description": "Class names, a field for each; those of the training if there are none.",
        },
        "top_k": {"type": "integer", "minimum": 1, "default": 5, "description": "Names an image."},
        "heads": {
            "type": "array",
            "items": {**text, "enum": heads},
            "default": ["exact"],
            "description": "Who answers, a field for each.",
        },
    }
    schema = {"type": "object", "required": ["images"], "properties": properties}
    encoding = {name: {"style": "form", "explode": True} for name in ("classes", "heads")}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema, "encoding": encoding}}}
    }
