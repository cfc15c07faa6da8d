"""What `gopro serve` refuses, and how it says so."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.inference.serve.auth import checked_key, read_key
from gopro.inference.serve.limits import Limits
from gopro.inference.taylor_head import TaylorHead
from gopro.runs.run import Run
from tests.support.serve import Served, connected, png, refused, serving, until, untrained, written

NAMES = ["red fox", "owl", "grand piano"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny: Backbone) -> Run:
    return untrained("cocoop", tiny, NAMES, tmp_path_factory.mktemp("limits"))


@pytest.fixture(scope="module")
def served(run: Run) -> Iterator[Served]:
    with serving(run, max_images=3, max_names=6, max_name_length=30, max_upload_mib=1, max_megapixels=1) as served:
        yield served


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        ({"classes": [f"name {i}" for i in range(7)]}, "too_many_names", "more than 6"),
        ({"classes": [f"name {i}" for i in range(200)]}, "too_many_names", "more than 6"),
        ({"classes": ["a" * 31]}, "name_too_long", "more than 30"),
        ({"classes": ["a" * 5000]}, "name_too_long", "more than 30"),
        ({"classes": ["a", " "]}, "bad_class_names", "empty"),
        ({"classes": ["a", "b", " a"]}, "bad_class_names", "'a' is given twice"),
        ({"classes": ["🦊" * 30]}, "bad_class_names", "shorten the name"),
        ({"heads": ["exactly"]}, "no_such_head", "there are exact, first-order, zeroshot"),
        ({"top_k": 0}, "bad_top_k", "'0'"),
        ({"top_k": "many"}, "bad_top_k", "'many'"),
        ({"top_k": "9" * 5000}, "name_too_long", "30"),
    ],
)
def test_wishes_past_a_limit(asked: dict[str, Any], code: str, words: str, served: Served) -> None:
    assert words in refused(served.predict(png(0), **asked), 422, code)
    assert served.predict(png(0)).status_code == 200


def test_too_many_or_no_images(served: Served) -> None:
    assert served.predict(*[png(i) for i in range(3)]).status_code == 200
    for count in (4, 40):
        refused(served.predict(*[png(i) for i in range(count)]), 422, "too_many_images")
    refused(requests.post(f"{served.url}/predict", files={"classes": (None, "a")}), 422, "no_images")
    refused(requests.post(f"{served.url}/predict", files={"images": (None, "a.png")}), 422, "not_a_file")
    files = [("images", ("a.png", png(0))), ("classes", ("b.txt", b"b"))]
    refused(requests.post(f"{served.url}/predict", files=files), 422, "not_a_text")
    files = [("images", ("a.png", png(0))), ("clases", (None, "b"))]
    assert "'clases'" in refused(requests.post(f"{served.url}/predict", files=files), 422, "unknown_field")


def test_too_many_bytes_announced_and_not(served: Served) -> None:
    noise = bytes(1 << 20)
    refused(served.predict(noise), 413, "too_large")
    body = requests.Request("POST", served.url, files={"images": ("a.png", noise)}).prepare()
    assert isinstance(body.body, bytes)
    chunks = (body.body[i : i + 50_000] for i in range(0, len(body.body), 50_000))  # no length is said of a generator
    headers = {"Content-Type": body.headers["Content-Type"]}
    refused(requests.post(f"{served.url}/predict", data=chunks, headers=headers, timeout=30), 413, "too_large")


def test_a_bomb_is_refused_before_it_is_decoded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    Image.new("1", (1001, 1000)).save(file, "PNG")
    monkeypatch.setattr(Image.Image, "load", lambda image: pytest.fail("it was decoded"))
    assert "more than 1000000 pixels" in refused(served.predict(file.getvalue()), 422, "unreadable")


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
            "multipart/form-data; boundary=b",  # cut off within an image
            b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n\x89PNG',
            422,
            "no_images",
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning")  # an unclosed file
def test_broken_forms(kind: str, body: bytes, status: int, code: str, served: Served) -> None:
    answer = requests.post(f"{served.url}/predict", data=body, headers={"Content-Type": kind}, timeout=30)
    refused(answer, status, code)


def test_other_paths_and_methods_answer_in_the_same_form(served: Served) -> None:
    assert "GET /nowhere" in refused(served.get("/nowhere"), 404, "not_found")
    refused(served.get("/page/../app.py"), 404, "not_found")
    refused(served.get("/page/%2e%2e/app.py"), 404, "not_found")
    answer = served.get("/predict")
    refused(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
    assert answer.headers["x-content-type-options"] == "nosniff" and "default-src 'self'" in str(answer.headers)


def test_a_client_that_sends_too_slowly_is_refused(run: Run) -> None:
    with serving(run, upload_seconds=1) as served, connected(served.url) as client:
        client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n")
        client.sendall(b"Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n")
        assert client.recv(1 << 16).startswith(b"HTTP/1.1 408")
        until(lambda: served.service.requests.held == 0)


@pytest.mark.parametrize(
    ("limits", "fit"), [({"max_queue": 4, "max_images": 2}, [2, 1, 1]), ({"max_requests": 3}, [1, 1, 1])]
)
def test_a_full_house_sends_others_away_and_takes_them_later(limits: dict[str, int], fit: list[int], run: Run) -> None:
    with serving(run, **limits) as served:
        with served.held_up() as held:
            first = [held.clients.submit(served.predict, *map(png, range(count))) for count in fit]
            until(lambda: served.service.images.held == sum(fit))
            for _ in range(3):
                answer = served.predict(png(9))
                refused(answer, 503, "busy")
                assert answer.headers["retry-after"] == "1"
            assert served.get("/health").status_code == 200
        assert [answer.result().status_code for answer in first] == [200] * 3
        assert served.predict(png(9)).status_code == 200
        assert served.service.requests.held == served.service.images.held == 0


@pytest.mark.parametrize(("values", "words"), [({"batch": 0}, "batch is 0"), ({"max_queue": 8}, "at least max_images")])
def test_limits_that_make_no_sense(values: dict[str, int], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Limits(**values)


# ---- the API key


def test_a_key_is_needed_for_all_but_health_and_the_page(run: Run) -> None:
    with serving(run, key="s3cret") as served:
        for path in ("/classes", "/samples", "/samples/0", "/metrics", "/openapi.json", "/nowhere"):
            answer = served.get(path)
            refused(answer, 401, "key_needed")
            assert answer.headers["www-authenticate"] == "Bearer"
        refused(served.predict(png(0)), 401, "key_needed")
        for wrong in ("", "s3cre", "s3cret2", "S3cret", "ß"):
            refused(served.get("/classes", headers={"X-API-Key": wrong.encode()}), 401, "key_needed")
        refused(served.get("/classes", headers={"Authorization": "Basic s3cret"}), 401, "key_needed")
        assert served.get("/health").status_code == 200
        assert served.get("/page/none.js").status_code == 404
        assert served.get("/classes", headers={"X-API-Key": "s3cret"}).json()["key_needed"] is True
        assert served.predict(png(0), headers={"Authorization": "Bearer s3cret"}).status_code == 200


def test_keys_from_files(tmp_path: Path) -> None:
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
        checked_key("", "GOPRO_API_KEY")


# ---- first-order heads


class Building:
    """The building of heads at the test's command."""

    def __init__(self, served: Served, monkeypatch: pytest.MonkeyPatch):
        self.begun: list[tuple[str, ...]] = []
        self.go = threading.Event()
        build = served.service.heads.built

        def waiting(names: tuple[str, ...]) -> TaylorHead:
            self.begun.append(names)
            assert self.go.wait(60)
            return build(names)

        monkeypatch.setattr(served.service.builder, "_build", waiting)


def heads(answer: requests.Response) -> dict[str, Any]:
    assert answer.status_code == 200, answer.text
    return answer.json()["results"][0]["heads"]


def test_a_head_is_built_on_the_side_once_for_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(run, head_seconds=60) as served, served.held_up() as held:
        held.go()
        building = Building(served, monkeypatch)
        waiting = [
            held.clients.submit(served.predict, png(i), classes=NAMES, heads=["first-order", "exact"]) for i in range(3)
        ]
        until(lambda: building.begun)
        for i in range(3):  # others are answered meanwhile
            assert served.predict(png(i), classes=NAMES).status_code == 200
        assert served.get("/health").status_code == 200 and not any(answer.done() for answer in waiting)
        building.go.set()
        for answer in waiting:
            both = heads(answer.result())
            near = [
                {p["name"]: p["probability"] for p in both[head]["predictions"]} for head in ("exact", "first-order")
            ]
            assert near[0] == pytest.approx(near[1], abs=0.02)
        assert heads(served.predict(png(5), classes=NAMES, heads=["first-order"]))["first-order"]["predictions"]
        assert building.begun == [tuple(NAMES)]
        assert not (run.folder / "heads").exists()  # strangers' names leave nothing on disk


def test_heads_past_their_limits_are_said_beside_the_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    both = ["first-order", "exact"]
    with serving(run, head_names=3, head_builds=1, head_seconds=60) as served, served.held_up() as held:
        held.go()
        many = ["a", "b", "c", "d"]
        said = heads(served.predict(png(0), classes=many, heads=both))
        assert "up to 3" in said["first-order"]["error"] and len(said["exact"]["predictions"]) == 4
        assert "up to 3" in refused(served.predict(png(0), classes=many, heads=["first-order"]), 422, "no_head")
        building = Building(served, monkeypatch)
        patient = held.clients.submit(served.predict, png(0), classes=["a"], heads=both)
        until(lambda: building.begun)
        said = heads(served.predict(png(0), classes=["b"], heads=both))
        assert "no more may wait" in said["first-order"]["error"] and said["exact"]["predictions"]
        monkeypatch.setattr(served.service.builder, "_seconds", 0.1)
        assert "still being built" in heads(served.predict(png(0), classes=["a"], heads=both))["first-order"]["error"]
        answer = served.predict(png(0), classes=["a"], heads=["first-order"])
        assert "still being built" in refused(answer, 503, "busy") and answer.headers["retry-after"]
        building.go.set()
        assert all("predictions" in said for said in heads(patient.result()).values())


def test_a_head_that_nobody_waits_for_any_more_is_not_begun(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(run, head_builds=3, head_seconds=60) as served, served.held_up() as held:
        held.go()
        building = Building(served, monkeypatch)
        first = held.clients.submit(served.predict, png(0), classes=["a"], heads=["first-order"])
        until(lambda: building.begun)
        with connected(served.url) as client:
            client.sendall(written(png(0), classes="b", heads="first-order"))
            until(lambda: len(served.service.builder._builds) == 2)
        until(lambda: len(served.service.builder._builds) == 1)
        last = held.clients.submit(served.predict, png(0), classes=["c"], heads=["first-order"])
        until(lambda: len(served.service.builder._builds) == 2)
        building.go.set()
        assert first.result().status_code == last.result().status_code == 200
        assert building.begun == [("a",), ("c",)]


def test_without_training_images_there_is_no_first_order_head(tiny: Backbone, tmp_path: Path) -> None:
    with serving(untrained("gopro", tiny, NAMES, tmp_path, data=str(tmp_path / "gone"))) as served:
        assert served.get("/classes").json()["heads"] == ["exact", "zeroshot"]
        answer = served.predict(png(0), heads=["first-order"])
        assert "cannot be had of this run" in refused(answer, 422, "no_such_head")
