"""Requests that a browser sends for a page of another origin: the preflight, the answer, and errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser

from gopro import cli
from gopro.clip.backbone import Backbone
from gopro.errors import InputError
from gopro.inference.serve.cors import check_origins
from tests.support.serve import RunningServer, png, serve_in_thread, untrained_run

PAGE, OTHER = "http://localhost:3000", "https://elsewhere.example"
ALLOW = "Access-Control-Allow-Origin"


@pytest.fixture
def open_server(tiny: Backbone, tmp_path: Path) -> Iterator[RunningServer]:
    """A server with a key that pages of two origins may ask."""
    run = untrained_run("zeroshot", tiny, ["cat", "dog"], tmp_path)
    with serve_in_thread(run, key="sesame", origins=["https://example.org", PAGE]) as server:
        yield server


def preflight(server: RunningServer, origin: str) -> requests.Response:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-api-key,content-type"}
    return requests.options(f"{server.url}/predict", headers={"Origin": origin, **asked}, timeout=60)


def test_a_page_of_an_allowed_origin_may_ask(open_server: RunningServer) -> None:
    allowed = preflight(open_server, PAGE)  # without the key: browsers send none here
    assert allowed.status_code == 200 and allowed.headers[ALLOW] == PAGE
    assert "POST" in allowed.headers["Access-Control-Allow-Methods"]
    assert "x-api-key" in allowed.headers["Access-Control-Allow-Headers"].lower()
    answer = open_server.predict(png(0), headers={"Origin": PAGE, "X-API-Key": "sesame"})
    assert answer.status_code == 200 and answer.headers[ALLOW] == PAGE and "Origin" in answer.headers["Vary"]
    for error in (
        open_server.predict(png(0), headers={"Origin": PAGE}),
        open_server.predict(headers={"Origin": PAGE, "X-API-Key": "sesame"}),
    ):
        assert error.status_code in (401, 415) and error.headers[ALLOW] == PAGE  # so that the page can say why


def test_a_page_may_read_that_the_server_failed(
    tiny: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = untrained_run("zeroshot", tiny, ["cat", "dog"], tmp_path)
    monkeypatch.setattr(type(run.method), "logits", lambda method, encoded: 1 // 0)
    monkeypatch.setattr(type(run.method), "class_vectors", lambda method: 1 // 0)
    with serve_in_thread(run, origins=[PAGE]) as server:
        failed = server.predict(png(0), headers={"Origin": PAGE})
    assert failed.status_code == 500 and failed.json()["error"]["code"] == "internal"
    assert failed.headers[ALLOW] == PAGE and "Content-Security-Policy" in failed.headers


def test_a_page_of_another_origin_may_not(open_server: RunningServer) -> None:
    refused = preflight(open_server, OTHER)
    assert refused.status_code == 400 and ALLOW not in refused.headers
    assert ALLOW not in open_server.predict(png(0), headers={"Origin": OTHER, "X-API-Key": "sesame"}).headers


def test_by_default_no_other_page_may_ask(server: RunningServer) -> None:
    assert preflight(server, PAGE).status_code == 405
    assert ALLOW not in server.predict(png(0), headers={"Origin": PAGE}).headers


def test_every_origin_can_be_allowed(tiny: Backbone, tmp_path: Path) -> None:
    with serve_in_thread(untrained_run("zeroshot", tiny, ["cat", "dog"], tmp_path), origins=["*"]) as server:
        assert preflight(server, OTHER).headers[ALLOW] == "*"


def test_a_browser_lets_an_allowed_page_read_the_answer(
    browser: Browser, server: RunningServer, tiny: Backbone, tmp_path: Path
) -> None:
    """The page of one server asks another server, with a key, which makes the browser send a preflight."""
    run = untrained_run("zeroshot", tiny, ["cat", "dog"], tmp_path)
    ask = """async ([url, bytes]) => {
        const form = new FormData();
        form.append("images", new Blob([new Uint8Array(bytes)]), "a.png");
        const options = { method: "POST", body: form, headers: { "X-API-Key": "sesame" } };
        return await fetch(url + "/predict", options).then(response => response.status, error => error.name);
    }"""
    page = browser.new_page(bypass_csp=True)  # this page may only ask its own server
    page.goto(server.url)
    for origins, outcome in (((server.url,), 200), (("http://localhost:3000",), "TypeError")):
        with serve_in_thread(run, key="sesame", origins=origins) as other:
            assert page.evaluate(ask, [other.url, list(png(0))]) == outcome
    page.close()


def test_origins_are_written_as_browsers_send_them() -> None:
    written = ["HTTP://LocalHost:3000", "https://example.org:443", "http://[::1]:80", "chrome-extension://abc", "*"]
    assert check_origins(written) == [
        "http://localhost:3000",
        "https://example.org",
        "http://[::1]",
        "chrome-extension://abc",
        "*",
    ]


@pytest.mark.parametrize(
    "origin",
    [
        *("localhost:3000", "https://example.org/", "https://example.org/app", "null", "", "http://", "http://a:b"),
        *("http://user@example.org", "http://*.example.org", "http://exämple.org", "http://a b", "https://a?x", " *"),
    ],
)
def test_what_is_not_an_origin_is_refused(origin: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="not the origin of a web page"):
        check_origins([origin])
    with pytest.raises(SystemExit):
        cli.main(["serve", "no-such-run", "--allow-origin", "https://example.org", origin])
    assert f"error: --allow-origin {origin}: not the origin of a web page" in capsys.readouterr().err
