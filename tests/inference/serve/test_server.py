"""`gopro serve` as a process: how it starts, how it stops, what it says when it cannot."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from gopro import cli
from gopro.cli import serve
from tests.support.serve import connected, png, until, written

DOCUMENT = Path(__file__).parents[3] / "docs" / "serve.md"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process") / "run"
    cli.main(f"train --data emoji-activities --method zeroshot --shots 1 --workers 0 --output {folder}".split())
    return folder


@contextmanager
def started(run: Path, *arguments: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, once it says where it is."""
    command = [sys.executable, "-m", "gopro.cli", "serve", str(run), "--port", "0", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    assert process.stderr
    try:
        said = process.stderr.readline()
        found = re.search(r"http://\S+", said)
        assert found, said + process.stderr.read()
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def closed(address: str) -> bool:
    """Whether new connections are refused."""
    try:
        connected(address).close()
    except ConnectionRefusedError:
        return True
    return False


def test_it_answers_as_documented_until_it_is_told_to_stop_and_then_those_it_has(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM comes while a request is on its way: it is answered, new ones are refused, and the exit code is 0."""
    with started(run_folder) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        assert requests.get(f"{address}/health", timeout=30).json() == {"status": "ok"}
        monkeypatch.chdir(tmp_path)
        Path("a.jpg").write_bytes(png(0))
        [example] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
        exec(compile(example.replace("http://127.0.0.1:8000", address), "serve.md", "exec"), {})
        out = capsys.readouterr().out
        assert out.startswith("a.jpg [{'name': '") and out.count("'probability': ") == 2
        request = written(png(1))
        with connected(address) as client:
            client.sendall(request[:-99])
            until(lambda: "gopro_requests_in_house 1.0" in requests.get(f"{address}/metrics", timeout=30).text)
            process.send_signal(signal.SIGTERM)
            until(lambda: closed(address))
            assert process.poll() is None
            client.sendall(request[-99:])
            said = b""
            while chunk := client.recv(1 << 16):
                said += chunk
        assert said.startswith(b"HTTP/1.1 200") and b'"predictions"' in said
        assert process.wait(30) == 0
        assert process.stderr and process.stderr.read() == "stopped\n"


def test_settings_reach_it_and_ctrl_c_stops_it(run_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "serve.yaml").write_text("max_names: 2\n")
    files = ("--config", str(tmp_path / "serve.yaml"), "--api-key-file", str(tmp_path / "key"))
    with started(run_folder, *files, "--max-images", "1", GOPRO_API_KEY="from-environment") as (process, address):
        assert requests.get(f"{address}/classes", timeout=30).status_code == 401
        about = requests.get(f"{address}/classes", headers={"X-API-Key": "from-file"}, timeout=30).json()
        assert (about["limits"]["names"], about["limits"]["images"]) == (2, 1)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr and process.stderr.read() == "stopped\n"


def test_a_client_has_only_so_long_to_say_what_it_wants(run_folder: Path) -> None:
    """Silent, within the head, and after a first answer; who has said it all is waited for by the app, and answered."""
    with started(run_folder, "--upload-seconds", "1") as (_, address):
        for begun in (b"", b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-"):
            with connected(address) as client:
                client.sendall(begun)
                assert client.recv(1) == b""
        with connected(address) as client:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            said = b""
            while not said.endswith(b'{"status":"ok"}'):
                said += client.recv(1 << 16)
            client.sendall(b"GET /hea")
            assert client.recv(1 << 16) == b""
        with connected(address) as client:
            client.sendall(written(png(0))[:-1])
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 408")


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and len(error.splitlines()) == 1
    return error


def test_what_keeps_it_from_starting_is_one_line(run_folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another --host or --port" in refusal(capsys, str(run_folder), "--port", port)
    assert "cannot serve at 192.0.2.1" in refusal(capsys, str(run_folder), "--host", "192.0.2.1", "--port", "0")
    assert "from 0 to 65535" in refusal(capsys, str(run_folder), "--port", "70000")
    assert "no such folder" in refusal(capsys, str(tmp_path / "none"), "--port", "0")
    assert "batch is 0" in refusal(capsys, str(run_folder), "--batch", "0", "--port", "0")
    assert "cannot be read" in refusal(capsys, str(run_folder), "--api-key-file", str(tmp_path / "none"))
    monkeypatch.setenv("GOPRO_API_KEY", "")
    assert "GOPRO_API_KEY does not hold a key" in refusal(capsys, str(run_folder), "--port", "0")


def test_without_the_extra_it_says_what_to_install(run_folder: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "fastapi" else importlib.util.find_spec(name))
    assert "(fastapi): pip install '.[serve]'" in refusal(capsys, str(run_folder))
