"""The routes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles

from gopro.inference.serve import schemas
from gopro.inference.serve.auth import KeyNeeded
from gopro.inference.serve.errors import GONE, Refusal, refuse_in_json
from gopro.inference.serve.limits import Limits
from gopro.inference.serve.metrics import Metrics
from gopro.inference.serve.middleware import Watched
from gopro.inference.serve.samples import sample_images
from gopro.inference.serve.service import Service
from gopro.inference.serve.uploads import asked
from gopro.runs.run import Run

PAGE = Path(__file__).with_name("page")


def make_app(
    run: Run, limits: Limits, key: str | None = None, *, samples_of: str | None = None, root: Path | None = None
) -> FastAPI:
    """The app of a run.

    Args:
        key: the API key that requests must carry, if any.
        samples_of, root: the data set whose test images everybody may see; see `sample_images`.

    Raises:
        InputError: these samples cannot be had.
    """
    metrics = Metrics()
    service = Service(run, limits, metrics)
    samples = sample_images(run, samples_of, root)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await asyncio.get_running_loop().run_in_executor(None, service.stop)

    # No pages of documentation: FastAPI's load their scripts from elsewhere.
    app = FastAPI(
        title="GOPro",
        version=version("gopro"),
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        responses=schemas.REFUSED,
    )
    app.state.service = service
    refuse_in_json(app)
    if key is not None:
        app.add_middleware(KeyNeeded, key=key)
    app.add_middleware(Watched, metrics=metrics)  # outermost

    about = {
        "classes": list(service.names),
        "method": run.config.method,
        "data": run.data,
        "backbone": run.method.backbone.name,
        "heads": list(service.heads.offered),
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
        """Whether the server is there; needs no key."""
        return JSONResponse({"status": "ok"})

    @app.get("/classes", response_model=schemas.About)
    async def classes() -> Response:
        """What the server answers with, and what it takes."""
        return JSONResponse(about)

    @app.post(
        "/predict",
        response_model=schemas.Answer,
        openapi_extra=schemas.predict_form(limits, list(service.heads.offered)),
    )
    async def predict(request: Request) -> Response:
        """Names for images, with probabilities."""
        with service.requests.holding():
            async with asked(request, limits, service.heads.offered) as question:
                return await _while_there(request, service.answer(question))

    @app.get("/samples", response_model=list[schemas.SampleName])
    async def sample_list() -> Response:
        """Images to try the server on."""
        return JSONResponse([{"name": str(i), "label": sample.label} for i, sample in enumerate(samples)])

    @app.get("/samples/{name}", response_class=Response)
    async def sample(name: str) -> Response:
        """One of them."""
        if not name.isascii() or not name.isdecimal() or len(name) > 3 or int(name) >= len(samples):
            raise Refusal(404, "not_found", f"there is no sample {name[:80]!r}: /samples lists them")
        found = samples[int(name)]
        return Response(found.content, media_type=found.kind)

    @app.get("/metrics", response_class=Response)
    async def metrics_text() -> Response:
        """What the server has counted, for Prometheus."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers={"Cache-Control": "no-cache"})

    app.mount("/page", StaticFiles(directory=PAGE))
    return app


async def _while_there(request: Request, work: Coroutine[Any, Any, dict[str, Any]]) -> Response:
    """The answer; given up where the client goes away meanwhile, so that nobody's images keep others waiting."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        return JSONResponse(task.result()) if task.done() else Response(status_code=GONE)
    finally:
        gone.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait((task,))  # it gives back what it holds


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
