"""A server of `gopro serve` in this process, its torch thread at the test's command, and clients of it."""

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
from gopro.inference.serve.server import bound, configured
from gopro.inference.serve.service import Service
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.run import Run

TEMPLATE = "a photo of a {}."


def untrained(spec: str, backbone: Backbone, names: Sequence[str], folder: Path, data: str = "emoji-activities") -> Run:
    """A run that nobody trained."""
    config = TrainConfig(data=data, method=spec, shots=1, output=folder)
    return Run(folder, config, data, TEMPLATE, build_method(spec, backbone, names, TEMPLATE).eval())


def png(seed: int, size: tuple[int, int] = (48, 40)) -> bytes:
    """An image file; each seed has its own."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 5, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(file, "PNG")
    return file.getvalue()


def image(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


@dataclass
class Served:
    """A server that answers at `url`."""

    url: str
    service: Service
    tower: list[int] = field(default_factory=list)
    """Images of each call of the image tower so far."""

    def predict(
        self, *images: bytes, classes: Sequence[str] = (), heads: Sequence[str] = (), top_k: int | None = None, **more
    ) -> requests.Response:
        files = [("images", (f"{i}.png", content)) for i, content in enumerate(images)]
        form: list[tuple[str, Any]] = [*(("classes", name) for name in classes), *(("heads", head) for head in heads)]
        if top_k is not None:
            form.append(("top_k", top_k))
        return requests.post(f"{self.url}/predict", files=files, data=form, timeout=60, **more)

    def get(self, path: str, **more) -> requests.Response:
        return requests.get(f"{self.url}{path}", timeout=60, **more)

    @contextmanager
    def held_up(self) -> Iterator[Held]:
        """With the torch thread waiting, as if it had much to do, until the block ends or `go` is called."""
        held, answer = Held(), self.service.batcher._answer

        def waiting(items, done) -> None:
            held.there.set()
            assert held.released.wait(60)
            answer(items, done)

        self.service.batcher._answer = waiting
        try:
            with ThreadPoolExecutor(64) as held.clients:
                try:
                    yield held
                finally:
                    held.go()
        finally:
            self.service.batcher._answer = answer


class Held:
    """`there` is set once a batch waits; `clients` are threads to ask from."""

    clients: ThreadPoolExecutor

    def __init__(self) -> None:
        self.there, self.released = threading.Event(), threading.Event()

    def go(self) -> None:
        self.released.set()


def connected(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=30)


def written(*images: bytes, **fields: str) -> bytes:
    """A request for predictions as it goes over the wire."""
    files = [("images", ("a.png", image)) for image in images]
    form = requests.Request("POST", "http://x", files=files, data=fields).prepare()
    assert isinstance(form.body, bytes)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(form.body)}\r\n"
    return f"{head}Content-Type: {form.headers['Content-Type']}\r\n\r\n".encode() + form.body


@contextmanager
def serving(run: Run, key: str | None = None, samples_of: str | None = None, **limits: int) -> Iterator[Served]:
    """A server on a free port, for as long as the block lasts."""
    app = make_app(run, Limits(**limits), key, samples_of=samples_of)
    config = configured(app, Limits(**limits))
    config.timeout_graceful_shutdown = 10
    server = uvicorn.Server(config)
    with bound("127.0.0.1", 0) as listening:
        served = Served(f"http://127.0.0.1:{listening.getsockname()[1]}", app.state.service)
        thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
        thread.start()
        hook = run.method.backbone.model.visual.register_forward_hook(
            lambda module, arguments, output: served.tower.append(len(arguments[0]))
        )
        try:
            until(lambda: server.started)
            yield served
        finally:
            hook.remove()
            server.should_exit = True
            thread.join()


def until(what, seconds: float = 30) -> None:
    """Waits until it is true."""
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends
        time.sleep(0.005)


def probabilities(answer: requests.Response, names: Sequence[str], head: str = "exact") -> np.ndarray:
    """[images, names], of an answer with all of them."""
    assert answer.status_code == 200, answer.text
    rows = []
    for result in answer.json()["results"]:
        said = {p["name"]: p["probability"] for p in result["heads"][head]["predictions"]}
        assert list(said.values()) == sorted(said.values(), reverse=True)
        rows.append([said[name] for name in names])
    return np.array(rows)


def refused(answer: requests.Response, status: int, code: str) -> str:
    """The message of a refusal."""
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (status, code), answer.text
    assert error["message"] and "\n" not in error["message"]
    return error["message"]
