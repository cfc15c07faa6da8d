"""The FastAPI app and its routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from gopro.inference.serve import schemas
from gopro.inference.serve.auth import ApiKeyMiddleware
from gopro.inference.serve.cors import check_origins, cors_settings
from gopro.inference.serve.errors import (
    CLIENT_CLOSED_REQUEST,
    InternalErrorMiddleware,
    RequestError,
    add_error_handlers,
)
from gopro.inference.serve.limits import Limits
from gopro.inference.serve.metrics import Metrics
from gopro.inference.serve.middleware import MetricsMiddleware
from gopro.inference.serve.samples import sample_images
from gopro.inference.serve.service import Service
from gopro.inference.serve.uploads import read_form
from gopro.runs.run import Run

PAGE = Path(__file__).with_name("page")


def make_app(
    run: Run,
    limits: Limits,
    key: str | None = None,
    *,
    origins: Sequence[str] = (),
    samples_of: str | None = None,
    root: Path | None = None,
) -> FastAPI:
    """Make the app that serves a run.

    Args:
        key: API key that requests must carry, if any.
        origins: origins, such as `https://example.org`, whose web pages may ask the server; `*` for all.
        samples_of, root: data set whose test images everybody may see; see `sample_images`.

    Raises:
        InputError: an origin is not one, or the sample images cannot be loaded.
    """
    allowed = check_origins(origins)
    metrics = Metrics()
    service = Service(run, limits, metrics)
    samples = sample_images(run, samples_of, root)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.get_running_loop().run_in_executor(None, service.stop)

    # FastAPI's documentation pages load their scripts from another server: no such pages.
    app = FastAPI(
        title="GOPro",
        version=version("gopro"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=schemas.ERRORS,
    )
    app.state.service = service
    add_error_handlers(app)
    app.add_middleware(InternalErrorMiddleware)  # added first, so that its answer gets the headers of all others
    if key is not None:
        app.add_middleware(ApiKeyMiddleware, key=key)
    if allowed:  # around the key: a preflight carries none, and a page must be able to read that a key is needed
        app.add_middleware(CORSMiddleware, **cors_settings(allowed))
    app.add_middleware(MetricsMiddleware, metrics=metrics)  # added last, so it also counts requests without a key

    info = {
        "classes": list(service.names),
        "method": run.config.method,
        "data": run.data,
        "backbone": run.method.backbone.name,
        "heads": list(service.heads.available),
        "limits": {
            "images": limits.max_images,
            "names": limits.max_names,
            "name_length": limits.max_name_length,
            "upload_bytes": limits.upload_bytes,
            "pixels": limits.pixels,
        },
        "key_needed": key is not None,
    }

    @app.get("/health", response_model=schemas.Health)
    async def health() -> Response:
        """Answer once the server is ready. Needs no key."""
        return JSONResponse({"status": "ok"})

    @app.get("/classes", response_model=schemas.ServerInfo)
    async def classes() -> Response:
        """Return the run's class names, the heads and the limits."""
        return JSONResponse(info)

    @app.post(
        "/predict",
        response_model=schemas.PredictResponse,
        openapi_extra=schemas.predict_form(limits, list(service.heads.available)),
    )
    async def predict(request: Request) -> Response:
        """Predict the class of each image, with probabilities."""
        with service.requests.hold():
            async with read_form(request, limits, service.heads.available, service.names) as form:
                return await _unless_disconnected(request, service.answer(form))

    @app.get("/samples", response_model=list[schemas.SampleInfo])
    async def sample_list() -> Response:
        """List the sample images."""
        return JSONResponse([{"name": str(i), "label": sample.label} for i, sample in enumerate(samples)])

    @app.get("/samples/{name}", response_class=Response)
    async def sample(name: str) -> Response:
        """Return a sample image."""
        if not name.isascii() or not name.isdecimal() or len(name) > 3 or int(name) >= len(samples):
            raise RequestError(404, "not_found", f"no sample {name[:80]!r}: /samples lists them")
        image = samples[int(name)]
        return Response(image.content, media_type=image.media_type)

    @app.get("/metrics", response_class=Response)
    async def metrics_text() -> Response:
        """Return the server's metrics in Prometheus's text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE))
    return app


async def _unless_disconnected(request: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """Await the answer, but cancel the work if the client disconnects, so that nobody waits for its images."""
    task = asyncio.ensure_future(work)
    disconnected = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, disconnected), return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(task.result()) if task.done() else Response(status_code=CLIENT_CLOSED_REQUEST)
    finally:
        disconnected.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))  # until it has released its images and requests


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
