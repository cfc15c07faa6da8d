"""Requests that the server refuses, and the errors it responses with."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.inference.serve.auth import check_key, read_key
from gopro.inference.serve.limits import Limits
from gopro.inference.taylor_head import TaylorHead
from gopro.runs.run import Run
from tests.support.serve import (
    RunningServer,
    check_error,
    connect,
    png,
    raw_request,
    serve_in_thread,
    untrained_run,
    wait_until,
)

NAMES = ["red fox", "owl", "grand piano"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Run:
    return untrained_run("cocoop", tiny, NAMES, tmp_path_factory.mktemp("limits"))


@pytest.fixture(scope="module")
def strict(run: Run) -> Iterator[RunningServer]:
    """A server with low limits."""
    low = {"max_images": 3, "max_names": 6, "max_name_length": 30, "max_upload_mib": 1, "max_megapixels": 1}
    with serve_in_thread(run, **low) as server:
        yield server


@pytest.mark.parametrize(
    ("form", "code", "words"),
    [
        ({"classes": [f"name {i}" for i in range(7)]}, "too_many_names", "more than 6"),
        ({"classes": [f"name {i}" for i in range(200)]}, "too_many_names", "more than 6"),
        ({"classes": ["a" * 31]}, "name_too_long", "more than 30"),
        ({"classes": ["a" * 5000]}, "name_too_long", "more than 30"),
        ({"classes": ["a", " "]}, "bad_class_names", "empty"),
        ({"classes": ["a", "b", " a"]}, "bad_class_names", "'a' is given twice"),
        ({"classes": ["a_b", "a b"]}, "bad_class_names", "'a b' is given twice"),
        ({"classes": ["fox"]}, "bad_class_names", "'fox' alone would get 100 %"),
        ({"classes": ["fox,owl"]}, "bad_class_names", "one name per field classes"),
        ({"classes": ["🦊" * 30, "fox"]}, "bad_class_names", "shorten the name"),
        ({"heads": ["exactly"]}, "no_such_head", "choose from exact, first-order, zeroshot"),
        ({"top_k": 0}, "bad_top_k", "'0'"),
        ({"top_k": "many"}, "bad_top_k", "'many'"),
        ({"top_k": "9" * 5000}, "name_too_long", "30"),
    ],
)
def test_a_bad_field_is_refused(form: dict[str, Any], code: str, words: str, strict: RunningServer) -> None:
    assert words in check_error(strict.predict(png(0), **form), 422, code)
    assert strict.predict(png(0)).status_code == 200


def test_too_many_or_no_images_are_refused(strict: RunningServer) -> None:
    assert strict.predict(*[png(i) for i in range(3)]).status_code == 200
    for count in (4, 40):
        check_error(strict.predict(*[png(i) for i in range(count)]), 422, "too_many_images")
    check_error(requests.post(f"{strict.url}/predict", files={"classes": (None, "a")}), 422, "no_images")
    check_error(requests.post(f"{strict.url}/predict", files={"images": (None, "a.png")}), 422, "not_a_file")
    files = [("images", ("a.png", png(0))), ("classes", ("b.txt", b"b"))]
    check_error(requests.post(f"{strict.url}/predict", files=files), 422, "not_a_text")
    files = [("images", ("a.png", png(0))), ("clases", (None, "b"))]
    assert "'clases'" in check_error(requests.post(f"{strict.url}/predict", files=files), 422, "unknown_field")


def test_a_large_request_is_refused_with_and_without_a_content_length(strict: RunningServer) -> None:
    noise = bytes(1 << 20)
    check_error(strict.predict(noise), 413, "too_large")
    body = requests.Request("POST", strict.url, files={"images": ("a.png", noise)}).prepare()
    assert isinstance(body.body, bytes)
    chunks = (body.body[i : i + 50_000] for i in range(0, len(body.body), 50_000))  # sent without a length
    headers = {"Content-Type": body.headers["Content-Type"]}
    check_error(requests.post(f"{strict.url}/predict", data=chunks, headers=headers, timeout=30), 413, "too_large")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(
    strict: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = io.BytesIO()
    Image.new("1", (1001, 1000)).save(file, "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    assert "more than 1000000 pixels" in check_error(strict.predict(file.getvalue()), 422, "unreadable")


@pytest.mark.parametrize(
    ("kind", "body", "status", "code"),
    [
        ("application/json", b'{"images": []}', 415, "not_a_form"),
        ("application/x-www-form-urlencoded", b"images=a", 415, "not_a_form"),
        ("multipart/form-data", b"x", 400, "bad_form"),
        ("multipart/form-data; boundary=b", b"", 422, "no_images"),
        ("multipart/form-data; boundary=b", b"no boundary in here", 400, "bad_form"),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n",
            400,
            "bad_form",
        ),
        (
            "multipart/form-data; boundary=b",  # ends within an image
            b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n\x89PNG',
            422,
            "no_images",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")  # an unclosed file
def test_a_body_that_is_not_a_form_is_refused(
    kind: str, body: bytes, status: int, code: str, strict: RunningServer
) -> None:
    response = requests.post(f"{strict.url}/predict", data=body, headers={"Content-Type": kind}, timeout=30)
    check_error(response, status, code)


def test_unknown_paths_and_methods_get_errors_of_the_same_shape(strict: RunningServer) -> None:
    assert "GET /nowhere" in check_error(strict.get("/nowhere"), 404, "not_found")
    check_error(strict.get("/page/../app.py"), 404, "not_found")
    check_error(strict.get("/page/%2e%2e/app.py"), 404, "not_found")
    response = strict.get("/predict")
    check_error(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    assert response.headers["x-content-type-options"] == "nosniff" and "default-src 'self'" in str(response.headers)


def test_a_body_that_arrives_too_slowly_is_refused(run: Run) -> None:
    with serve_in_thread(run, upload_seconds=1) as server, connect(server.url) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n")
        client.sendall(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 408")
        wait_until(lambda: server.service.requests.in_progress == 0)


@pytest.mark.parametrize(
    ("limits", "images"), [({"max_queue": 4, "max_images": 2}, [2, 1, 1]), ({"max_requests": 3}, [1, 1, 1])]
)
def test_a_busy_server_refuses_requests_and_takes_them_later(
    limits: dict[str, int], images: list[int], run: Run
) -> None:
    with serve_in_thread(run, **limits) as server:
        with server.pause() as pause:
            first = [pause.clients.submit(server.predict, *map(png, range(count))) for count in images]
            wait_until(lambda: server.service.images.in_progress == sum(images))
            for _ in range(3):
                response = server.predict(png(9))
                check_error(response, 503, "busy")
                assert response.headers["retry-after"] == "1"
            assert server.get("/health").status_code == 200
        assert [response.result().status_code for response in first] == [200] * 3
        assert server.predict(png(9)).status_code == 200
        assert server.service.requests.in_progress == server.service.images.in_progress == 0


@pytest.mark.parametrize(("values", "words"), [({"batch": 0}, "batch is 0"), ({"max_queue": 8}, "at least max_images")])
def test_impossible_limits_are_refused(values: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Limits(**values)


# API key


def test_everything_but_health_and_the_page_needs_the_key(run: Run) -> None:
    with serve_in_thread(run, key="s3cret") as server:
        for path in ("/classes", "/samples", "/samples/0", "/metrics", "/openapi.json", "/nowhere"):
            response = server.get(path)
            check_error(response, 401, "key_needed")
            assert response.headers["www-authenticate"] == "Bearer"
        check_error(server.predict(png(0)), 401, "key_needed")
        for wrong in ("", "s3cre", "s3cret2", "S3cret", "ß"):
            check_error(server.get("/classes", headers={"X-API-Key": wrong.encode()}), 401, "key_needed")
        check_error(server.get("/classes", headers={"Authorization": "Basic s3cret"}), 401, "key_needed")
        assert server.get("/health").status_code == 200
        assert server.get("/page/none.js").status_code == 404
        assert server.get("/classes", headers={"X-API-Key": "s3cret"}).json()["key_needed"] is True
        assert server.predict(png(0), headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_the_key_file_must_hold_one_line_of_ascii(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("  s3cret\n")
    assert read_key(file) == "s3cret"
    for content in ("", "\n", "two\nlines", "a b"):
        file.write_text(content)
        with pytest.raises(InputError, match="does not hold a key"):
            read_key(file)
    file.write_bytes(b"\xff")
    for path, words in ((file, "not ASCII"), (tmp_path / "none", "No such file")):
        with pytest.raises(InputError, match=words):
            read_key(path)
    with pytest.raises(InputError, match="GOPRO_API_KEY"):
        check_key("", "GOPRO_API_KEY")


# First-order heads


class DelayedBuilds:
    """Delays the building of heads until `go` is set."""

    def __init__(self, server: RunningServer, monkeypatch: pytest.MonkeyPatch):
        self.started: list[tuple[str, ...]] = []
        self.go = threading.Event()
        build = server.service.heads.build_first_order

        def wait_and_build(names: tuple[str, ...]) -> TaylorHead:
            self.started.append(names)
            assert self.go.wait(60)
            return build(names)

        monkeypatch.setattr(server.service.builder, "_build", wait_and_build)


def heads(response: requests.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    return response.json()["results"][0]["heads"]


def test_clients_share_a_head_that_is_built_in_the_background(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_in_thread(run, head_seconds=60) as server, ThreadPoolExecutor(8) as clients:
        building = DelayedBuilds(server, monkeypatch)
        waiting = [
            clients.submit(server.predict, png(i), classes=NAMES, heads=["first-order", "exact"]) for i in range(3)
        ]
        wait_until(lambda: building.started)
        for i in range(3):  # other requests are responseed meanwhile
            assert server.predict(png(i), classes=NAMES).status_code == 200
        assert server.get("/health").status_code == 200 and not any(response.done() for response in waiting)
        building.go.set()
        for response in waiting:
            both = heads(response.result())
            exact, first_order = (
                {p["name"]: p["probability"] for p in both[head]["predictions"]} for head in ("exact", "first-order")
            )
            assert first_order == pytest.approx(exact, abs=0.02)
        assert heads(server.predict(png(5), classes=NAMES, heads=["first-order"]))["first-order"]["predictions"]
        assert building.started == [tuple(NAMES)]
        assert not (run.folder / "heads").exists()  # clients must not fill the disk


def test_a_head_that_cannot_be_built_is_an_error_beside_the_other_heads(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = ["first-order", "exact"]
    with serve_in_thread(run, head_names=3, head_builds=1, head_seconds=60) as server, ThreadPoolExecutor(8) as clients:
        many = ["a", "b", "c", "d"]
        results = heads(server.predict(png(0), classes=many, heads=both))
        assert "up to 3" in results["first-order"]["error"] and len(results["exact"]["predictions"]) == 4
        assert "up to 3" in check_error(server.predict(png(0), classes=many, heads=["first-order"]), 422, "no_head")
        building = DelayedBuilds(server, monkeypatch)
        patient = clients.submit(server.predict, png(0), classes=["a", "b"], heads=both)
        wait_until(lambda: building.started)
        results = heads(server.predict(png(0), classes=["b", "c"], heads=both))
        assert "already being built" in results["first-order"]["error"] and results["exact"]["predictions"]
        monkeypatch.setattr(server.service.builder, "_seconds", 0.1)
        assert (
            "still being built" in heads(server.predict(png(0), classes=["a", "b"], heads=both))["first-order"]["error"]
        )
        response = server.predict(png(0), classes=["a", "b"], heads=["first-order"])
        assert "still being built" in check_error(response, 503, "busy") and response.headers["retry-after"]
        building.go.set()
        assert all("predictions" in result for result in heads(patient.result()).values())


def test_a_queued_head_that_nobody_waits_for_is_not_built(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_in_thread(run, head_builds=3, head_seconds=60) as server, ThreadPoolExecutor(8) as clients:
        building = DelayedBuilds(server, monkeypatch)
        first = clients.submit(server.predict, png(0), classes=["a", "b"], heads=["first-order"])
        wait_until(lambda: building.started)
        with connect(server.url) as client:
            client.sendall(raw_request(png(0), classes=["b", "c"], heads="first-order"))
            wait_until(lambda: len(server.service.builder._pending) == 2)
        wait_until(lambda: len(server.service.builder._pending) == 1)
        last = clients.submit(server.predict, png(0), classes=["c", "d"], heads=["first-order"])
        wait_until(lambda: len(server.service.builder._pending) == 2)
        building.go.set()
        assert first.result().status_code == last.result().status_code == 200
        assert building.started == [("a", "b"), ("c", "d")]


def test_without_training_images_first_order_is_not_available(tiny: Backbone, tmp_path: Path) -> None:
    with serve_in_thread(untrained_run("gopro", tiny, NAMES, tmp_path, data=str(tmp_path / "gone"))) as server:
        assert server.get("/classes").json()["heads"] == ["exact", "zeroshot"]
        response = server.predict(png(0), heads=["first-order"])
        assert "is not available for this run" in check_error(response, 422, "no_such_head")
