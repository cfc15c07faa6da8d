"""Requests and responses as /openapi.json describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from gopro.inference.classifier import Prediction
from gopro.inference.serve.limits import Limits


class HeadPredictions(BaseModel):
    """Predictions of one head, likeliest first, or an error; `milliseconds` is its time for the whole batch."""

    predictions: list[Prediction] = []
    milliseconds: float | None = None
    error: str | None = None


class ImagePredictions(BaseModel):
    """Predictions for one image by each head, or an error if the image cannot be read."""

    image: str
    heads: dict[str, HeadPredictions] = {}
    error: str | None = None


class Milliseconds(BaseModel):
    """Time spent on a request, by stage."""

    decode: float
    queue: float
    encode: float
    total: float


class PredictResponse(BaseModel):
    """Results in the order of the images; `classes` is the number of class names they were chosen from."""

    classes: int
    results: list[ImagePredictions]
    milliseconds: Milliseconds


class ServerInfo(BaseModel):
    """The run that is served, the heads that can be asked, and the limits of a request."""

    classes: list[str]
    method: str
    data: str
    backbone: str
    heads: list[str]
    limits: dict[str, int]
    key_needed: bool


class SampleInfo(BaseModel):
    """A sample image: its `name` in /samples/{name}, and its class."""

    name: str
    label: str


class Health(BaseModel):
    status: str


class ErrorDetail(BaseModel):
    """An error: `code` for programs, `message` for people."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    error: ErrorDetail


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (400, 401, 404, 405, 408, 413, 415, 422, 503)
}


def predict_form(limits: Limits, heads: list[str]) -> dict[str, Any]:
    """Return the OpenAPI description of the form of POST /predict."""
    text = {"type": "string"}
    properties = {
        "images": {
            "type": "array",
            "items": {"type": "string", "format": "binary"},
            "minItems": 1,
            "maxItems": limits.max_images,
            "description": "Image files, one field per file.",
        },
        "classes": {
            "type": "array",
            "items": {**text, "maxLength": limits.max_name_length},
            "maxItems": limits.max_names,
            "description": "Class names to choose from, two or more, one field per name; by default those of the run. "
            "Underscores are read as spaces.",
        },
        "top_k": {"type": "integer", "minimum": 1, "default": 5, "description": "Predictions per image."},
        "heads": {
            "type": "array",
            "items": {**text, "enum": heads},
            "default": ["exact"],
            "description": "Heads to ask, one field per head.",
        },
    }
    schema = {"type": "object", "required": ["images"], "properties": properties}
    encoding = {name: {"style": "form", "explode": True} for name in ("classes", "heads")}
    return {
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema, "encoding": encoding}}}
    }
