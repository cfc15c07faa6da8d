"""Hostile requests cause no server error, reveal no file and do not keep good requests from being answered.

Twenty cases of each kind are tried; `--trials 15` tries all of them, and more random ones.
"""

from __future__ import annotations

import random
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from gopro.clip.backbone import load_backbone
from tests.support import hostile_requests
from tests.support.hostile_requests import BOUNDARY, RawClient, form, post
from tests.support.serve import RunningServer, serve_in_thread, untrained_run


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("requests")
    with serve_in_thread(
        untrained_run("gopro", load_backbone("emoji"), hostile_requests.NAMES, folder), upload_seconds=3
    ) as server:
        yield server


@pytest.fixture
def client(server: RunningServer) -> Iterator[RawClient]:
    """Return a client of the server, and check that the server gives the same good answer before and after a test."""
    client = RawClient(server.url)
    before = client.good_answer()
    yield client
    assert client.good_answer() == before


@pytest.mark.parametrize("kind", ["forms", "values", "uploads", "wire", "paths", "masses"])
def test_hostile_requests_are_refused(
    kind: str, client: RawClient, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    cases = list(hostile_requests.uploads(tmp_path) if kind == "uploads" else getattr(hostile_requests, kind)())
    for name, send in cases[:: -(-len(cases) // (20 * pytestconfig.getoption("--trials")))]:
        answer = send(client)
        assert answer.harmless, f"{name}: {answer.status} {answer.body[-200:]!r}"


def test_slow_clients_do_not_delay_others(client: RawClient, pytestconfig: pytest.Config) -> None:
    """Send the body one byte at a time. A reverse proxy has to cut off slow headers."""
    count = 6 * pytestconfig.getoption("--trials")
    whole = post(form(("classes", "cat")), f"multipart/form-data; boundary={BOUNDARY}")
    body, answers = whole.index(b"\r\n\r\n") + 4, []

    def drip(i: int) -> None:
        at = body + (len(whole) - 20 - body) * i // count
        parts = [whole[:at], *(whole[k : k + 1] for k in range(at, at + 12))]
        answers.append(client.send(*parts, pause=0.4, seconds=15))

    threads = [threading.Thread(target=drip, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    assert client.good_answer()
    for thread in threads:
        thread.join()
    assert len(answers) == count and all(answer.harmless for answer in answers), answers


def test_clients_that_disconnect_early_do_not_affect_others(client: RawClient, pytestconfig: pytest.Config) -> None:
    draw = random.Random(11)
    whole = post(form(*(("classes", f"n{i}") for i in range(50))), f"multipart/form-data; boundary={BOUNDARY}")
    for _ in range(5 * pytestconfig.getoption("--trials")):
        with socket.create_connection(("127.0.0.1", client.port), timeout=10) as connection:
            connection.sendall(whole[: draw.randint(1, len(whole))])
            time.sleep(draw.random() * 0.05)
            if draw.random() < 0.5:  # close with a reset
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def test_a_charset_other_than_utf_8_is_refused(client: RawClient) -> None:
    """These charsets can yield a lone surrogate, which cannot be sent in an answer and used to cause a 500."""
    body = form(("classes", "\\ud800"), ("classes", "b"))
    for charset in ("unicode_escape", "utf-7", "undefined"):
        answer = client.ask(body, f"multipart/form-data; boundary={BOUNDARY}; charset={charset}")
        assert answer.status == 415 and b"not_utf_8" in answer.body
    assert client.ask(body, f'multipart/form-data; boundary={BOUNDARY}; charset="UTF-8"').status == 200


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=lambda mode: mode.value)
def test_answers_match_the_openapi_description(
    mode: GenerationMode, client: RawClient, pytestconfig: pytest.Config
) -> None:
    """Generate requests that /openapi.json allows or forbids, and check each answer against it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        schema = schemathesis.openapi.from_url(f"{client.url}/openapi.json")
        statuses: list[int] = []
        for result in schema.get_all_operations():
            operation = result.ok()

            @seed(11)
            @settings(
                max_examples=15 * pytestconfig.getoption("--trials"),
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(generation_mode=mode))
            def ask(case: schemathesis.Case) -> None:
                response = case.call(timeout=60)
                statuses.append(response.status_code)
                assert b"Traceback" not in response.content
                if response.status_code != 503:  # described, but schemathesis counts every 5xx as a failure
                    case.validate_response(response, excluded_checks=[positive_data_acceptance])

            try:
                ask()
            except Unsatisfiable:  # no request to this operation is forbidden
                continue
    assert len(statuses) >= 15 and max(statuses) <= 503
