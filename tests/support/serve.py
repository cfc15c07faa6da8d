"""Run `gopro serve` in a thread of the test's process, pause its torch thread, and send requests to it."""

from __future__ import annotations

import io
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests
import uvicorn
from PIL import Image

from gopro.clip.backbone import Backbone
from gopro.inference.serve.app import make_app
from gopro.inference.serve.limits import Limits
from gopro.inference.serve.server import listen, uvicorn_config
from gopro.inference.serve.service import Service
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.run import Run

TEMPLATE = "a photo of a {}."


def untrained_run(
    spec: str,
    backbone: Backbone,
    names: Sequence[str],
    folder: Path,
    data: str = "emoji-activities",
    template: str = TEMPLATE,
) -> Run:
    """Return a run of an untrained method."""
    config = TrainConfig(data=data, method=spec, shots=1, output=folder)
    return Run(folder, config, data, template, build_method(spec, backbone, names, template).eval())


def png(seed: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """Return a PNG file of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(file, "PNG")
    return file.getvalue()


def open_image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@dataclass
class RunningServer:
    """A running server.

    Attributes:
        tower_batches: number of images in each pass through the image tower.
    """

    url: str
    service: Service
    tower_batches: list[int] = field(default_factory=list)

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def predict(
        self, *images: bytes, classes: Sequence[str] = (), heads: Sequence[str] = (), top_k: Any = None, **more
    ) -> requests.Response:
        files = [("images", (f"{i}.png", content)) for i, content in enumerate(images)]
        form: list[tuple[str, Any]] = [*(("classes", name) for name in classes), *(("heads", head) for head in heads)]
        if top_k is not None:
            form.append(("top_k", top_k))
        return requests.post(f"{self.url}/predict", files=files, data=form, timeout=60, **more)

    def get(self, path: str, **more) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=60, **more)

    @contextmanager
    def pause(self) -> Iterator[Pause]:
        """Make the torch thread wait before its next batch until the block ends or `resume` is called."""
        pause, run_batch = Pause(), self.service.batcher._run_batch

        def wait_and_run(images, on_done) -> None:
            pause.reached.set()
            assert pause.resumed.wait(60)
            run_batch(images, on_done)

        self.service.batcher._run_batch = wait_and_run
        try:
            with ThreadPoolExecutor(64) as pause.clients:
                try:
                    yield pause
                finally:
                    pause.resume()
        finally:
            self.service.batcher._run_batch = run_batch


class Pause:
    """A paused torch thread: `reached` is set once a batch waits, and `clients` are threads to send requests from."""

    clients: ThreadPoolExecutor

    def __init__(self) -> None:
        self.reached, self.resumed = threading.Event(), threading.Event()

    def resume(self) -> None:
        self.resumed.set()


def connect(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)


def raw_request(*images: bytes, **fields: str | Sequence[str]) -> bytes:
    """Return the bytes of a prediction request."""
    files = [("images", ("a.png", image)) for image in images]
    form = requests.Request("POST", "http://x", files=files, data=fields).prepare()
    assert isinstance(form.body, bytes)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(form.body)}\r\n"
    return f"{head}Content-Type: {form.headers['Content-Type']}\r\n\r\n".encode() + form.body


@contextmanager
def serve_in_thread(
    run: Run, key: str | None = None, samples_of: str | None = None, origins: Sequence[str] = (), **limits: int
) -> Iterator[RunningServer]:
    """Serve a run on a free port while the block runs."""
    app = make_app(run, Limits(**limits), key, origins=origins, samples_of=samples_of)
    config = uvicorn_config(app)
    config.timeout_graceful_shutdown = 10
    uvicorn_server = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        server = RunningServer(f"http://127.0.0.1:{listener.getsockname()[1]}", app.state.service)
        thread = threading.Thread(target=uvicorn_server.run, args=([listener],), daemon=True)
        thread.start()
        hook = run.method.backbone.model.visual.register_forward_hook(
            lambda module, arguments, output: server.tower_batches.append(len(arguments[0]))
        )
        try:
            wait_until(lambda: uvicorn_server.started)
            yield server
        finally:
            hook.remove()
            uvicorn_server.should_exit = True
            thread.join()


def wait_until(condition, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def probabilities(response: requests.Response, names: Sequence[str], head: str = "exact") -> np.ndarray:
    """Return the probabilities [images, names] in a response that ranks all names."""
    assert response.status_code == 200, response.text
    rows = []
    for result in response.json()["results"]:
        by_name = {p["name"]: p["probability"] for p in result["heads"][head]["predictions"]}
        assert list(by_name.values()) == sorted(by_name.values(), reverse=True)
        rows.append([by_name[name] for name in names])
    return np.array(rows)


def check_error(response: requests.Response, status: int, code: str) -> str:
    """Check the status, error code and one-line message of a response, and return the message."""
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), response.text
    assert error["message"] and "\n" not in error["message"]
    return error["message"]
