"""`gopro serve` from the command line: start, settings, shutdown, and the errors that keep it from starting."""

from __future__ import annotations

import importlib.util
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from gopro import cli
from gopro.cli import serve
from gopro.clip.weights.embedded import describe_backbone
from tests.support.serve import connect, png, raw_request, wait_until

BACKBONE = f"Backbone: {describe_backbone('emoji', 'train again with --backbone')}"
DOCUMENT = Path(__file__).parents[3] / "docs" / "serve.md"


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("process") / "run"
    cli.main(f"train --data emoji-activities --method zeroshot --shots 1 --workers 0 --output {folder}".split())
    return folder


@contextmanager
def serve_process(run: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start a server process and give it with its address once it is ready."""
    command = [sys.executable, "-m", "gopro.cli", "serve", str(run), "--port", "0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        line = process.stderr.readline()
        address = re.search(r"http://\S+", line)
        assert address, line + process.stderr.read()
        yield process, address[0]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def refuses_connections(address: str) -> bool:
    try:
        connect(address).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.mark.slow  # a process of its own
def test_sigterm_refuses_new_requests_and_finishes_those_in_progress(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the example of docs/serve.md, then send SIGTERM while a request is arriving; the exit code is 0."""
    with serve_process(run_folder) as (process, address):
        assert address.startswith("http://127.0.0.1:")
        assert requests.get(f"{address}/health", timeout=30).json() == {"status": "ok"}
        monkeypatch.chdir(tmp_path)
        Path("a.jpg").write_bytes(png(0))
        [example] = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), flags=re.DOTALL)
        exec(compile(example.replace("http://127.0.0.1:8000", address), "serve.md", "exec"), {})
        out = capsys.readouterr().out
        assert out.startswith("a.jpg [{'name': '") and out.count("'probability': ") == 2
        request = raw_request(png(1))
        with connect(address) as client:
            client.sendall(request[:-99])
            wait_until(lambda: "gopro_requests_in_progress 1.0" in requests.get(f"{address}/metrics", timeout=30).text)
            process.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses_connections(address))
            assert process.poll() is None
            client.sendall(request[-99:])
            response = b""
            while chunk := client.recv(1 << 16):
                response += chunk
        assert response.startswith(b"HTTP/1.1 200") and b'"predictions"' in response
        assert process.wait(30) == 0
        assert process.stderr and process.stderr.read() == f"{BACKBONE}\nStopped.\n"


def test_settings_take_effect_and_ctrl_c_stops_the_server(
    run_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Run the command in this process, and a client of it in a thread, which ends it by SIGINT."""
    (tmp_path / "key").write_text("from-file\n")
    (tmp_path / "serve.yaml").write_text("max_names: 2\n")
    monkeypatch.setenv("GOPRO_API_KEY", "from-environment")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address, responses = f"http://127.0.0.1:{port}", []

    def client() -> None:
        try:
            wait_until(lambda: not refuses_connections(address))
            responses.append(requests.get(f"{address}/classes", timeout=30))
            responses.append(requests.get(f"{address}/classes", headers={"X-API-Key": "from-file"}, timeout=30))
        finally:
            signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=client)
    thread.start()
    files = ["--config", str(tmp_path / "serve.yaml"), "--api-key-file", str(tmp_path / "key")]
    cli.main(["serve", str(run_folder), "--port", str(port), *files, "--max-images", "1"])
    thread.join()
    assert responses[0].status_code == 401
    limits = responses[1].json()["limits"]
    assert (limits["names"], limits["images"]) == (2, 1)
    assert capsys.readouterr().err == f"Serving {run_folder} at {address} (Ctrl-C stops it)\n{BACKBONE}\nStopped.\n"


def usage_error(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command that fails, and return the one line that it prints."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["serve", *arguments])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("error: ") and len(error.splitlines()) == 1
    return error


def test_errors_at_start_are_one_line(run_folder: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert "choose another --host or --port" in usage_error(capsys, str(run_folder), "--port", port)
    assert "cannot listen on 192.0.2.1" in usage_error(capsys, str(run_folder), "--host", "192.0.2.1", "--port", "0")
    assert "from 0 to 65535" in usage_error(capsys, str(run_folder), "--port", "70000")
    assert "no such folder" in usage_error(capsys, str(tmp_path / "none"), "--port", "0")
    assert "batch is 0" in usage_error(capsys, str(run_folder), "--batch", "0", "--port", "0")
    assert "cannot be read" in usage_error(capsys, str(run_folder), "--api-key-file", str(tmp_path / "none"))
    monkeypatch.setenv("GOPRO_API_KEY", "")
    assert "GOPRO_API_KEY does not hold a key" in usage_error(capsys, str(run_folder), "--port", "0")


def test_a_missing_package_is_reported_with_the_extra(
    run_folder: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serve, "find_spec", lambda name: None if name == "fastapi" else importlib.util.find_spec(name))
    assert "(fastapi): pip install '.[serve]'" in usage_error(capsys, str(run_folder))
