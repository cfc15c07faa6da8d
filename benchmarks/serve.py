"""Measure `gopro serve` under load: one client, many clients, and many clients without batching.

    python -m benchmarks.serve [--json] [--run RUN] [--clients 50] [--seconds 60] [--heads exact first-order]

Clients and server share this machine. Each client keeps its connection open and sends one image after another, each a
new scene of the embedded emoji, to be classified among the run's class names. Without `--run`, a run of `gopro` on
emoji-activities (85 classes) is trained first. Each row has a server process of its own: for one client; for many
clients if the server encodes images one by one (`--batch 1`); for many clients if it encodes waiting images together.
Times are the client's, from sending the request to the end of the response, after a warm-up of 3 s. Any status but 200
is an error. Memory is the server's resident memory in the first and in the last fifth of the time. The server caches
only 4 MiB of encodings, which no request here reuses, so that the cache does not grow during the measurement.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.common import about, make_parser, print_report
from gopro.data.load_dataset import load_dataset
from gopro.inference.taylor_head_file import load_or_build_head
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.training.train import train

DATA = "emoji-activities"
WARM_UP = 3.0
BOUNDARY = "benchmark-serve"


@dataclass(frozen=True)
class Measured:
    """One server under one load; times in ms, memory in MiB."""

    head: str
    load: str
    seconds: float
    requests: int
    errors: int
    p50: float
    p95: float
    slowest: float
    images_per_batch: float
    memory_first: float
    memory_last: float


@dataclass
class Responses:
    """Response times and errors of all clients."""

    milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--run", type=Path, help="folder of a trained run")
    parser.add_argument("--clients", type=int, default=50, metavar="N")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="time of the rows with many clients")
    parser.add_argument("--baseline", type=float, default=20.0, metavar="S", help="time of the other rows")
    parser.add_argument("--heads", nargs="+", default=["exact", "first-order"], metavar="HEAD")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = options.run or _trained(Path(scratch) / "run")
        report = measure(run, options)
    print_report(report, table, options.json)


def _trained(folder: Path) -> Path:
    train(TrainConfig(data=DATA, method="gopro", shots=2, epochs=1, bank=1, workers=0, output=folder, device="cpu"))
    return folder


def measure(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Measure all rows."""
    trained = load_run(run)
    if "first-order" in options.heads:
        load_or_build_head(trained, trained.method.classnames)  # otherwise the first request would wait for it
    images = _images()
    rows = []
    many = f"{options.clients} clients"
    for head in options.heads:
        for load, clients, seconds, arguments in (
            ("1 client", 1, options.baseline, ()),
            (f"{many}, --batch 1", options.clients, options.baseline, ("--batch", "1")),
            (many, options.clients, options.seconds, ()),
        ):
            with server(run, *arguments) as port:
                rows.append(run_load(port, head, load, clients, seconds, images))
    return {**about(), "classes": len(trained.method.classnames), "results": [asdict(row) for row in rows]}


def _images() -> list[bytes]:
    """Return test scenes as PNG files."""
    files = []
    for sample in load_dataset(DATA).test:
        file = io.BytesIO()
        sample.image.open().save(file, "PNG")
        files.append(file.getvalue())
    return files


@contextmanager
def server(run: Path, *arguments: str) -> Iterator[int]:
    """Start a server process and yield its port."""
    command = [sys.executable, "-m", "gopro.cli", "serve", str(run), "--port", "0", *arguments]
    command += ["--device", "cpu", "--encodings-mib", "4"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        line = process.stderr.readline()
        if not (address := re.search(r"http://127\.0\.0\.1:(\d+)", line)):
            raise SystemExit(line + process.stderr.read())
        yield int(address[1])
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def run_load(
    port: int, head: str, load: str, clients: int, seconds: float, images: Sequence[bytes], warm_up: float = WARM_UP
) -> Measured:
    """Measure a server under the load of so many clients."""
    responses, counter, begin = Responses(), itertools.count(), time.perf_counter() + warm_up
    threads = [
        threading.Thread(target=_client, args=(port, head, images, counter, begin, begin + seconds, responses))
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    time.sleep(max(0.0, begin - time.perf_counter()))
    first, memory = _metrics(port), []
    while time.perf_counter() < begin + seconds:
        memory.append(_metrics(port)["process_resident_memory_bytes"] / 2**20)
        time.sleep(min(1.0, seconds / 20))
    last = _metrics(port)
    for thread in threads:
        thread.join()
    if not responses.milliseconds:
        raise SystemExit(f"{head}, {load}: no answer in {seconds} s ({', '.join(responses.errors[:1])})")
    if responses.errors:
        print(f"{head}, {load}: {responses.errors[0]}", file=sys.stderr)
    batches, encoded = (
        last[f"gopro_tower_images_{part}"] - first[f"gopro_tower_images_{part}"] for part in ("count", "sum")
    )
    times, fifth = sorted(responses.milliseconds), max(1, len(memory) // 5)
    return Measured(
        head=head,
        load=load,
        seconds=seconds,
        requests=len(times),
        errors=len(responses.errors),
        p50=statistics.median(times),
        p95=times[int(0.95 * len(times))],
        slowest=times[-1],
        images_per_batch=encoded / batches,
        memory_first=statistics.mean(memory[:fifth]),
        memory_last=statistics.mean(memory[-fifth:]),
    )


def _client(
    port: int,
    head: str,
    images: Sequence[bytes],
    counter: Iterator[int],
    begin: float,
    end: float,
    responses: Responses,
) -> None:
    """Send one request after another; those answered between `begin` and `end` count."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    while (sent := time.perf_counter()) < end:
        number = next(counter)
        # A decoder ignores bytes after the end of a PNG, but they make it another file for the server's cache.
        form = _form(head, images[number % len(images)] + number.to_bytes(8, "big"))
        try:
            connection.request("POST", "/predict", form, kind)
            response = connection.getresponse()
            answer, status = response.read(), response.status
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            answer, status = repr(error).encode(), 0
        if begin <= (now := time.perf_counter()) <= end:
            if status == 200:
                responses.milliseconds.append(1000 * (now - sent))
            else:
                responses.errors.append(f"{status} {answer[:200]!r}")
    connection.close()


def _form(head: str, image: bytes) -> bytes:
    return (
        (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="heads"\r\n\r\n{head}\r\n'
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
        ).encode()
        + image
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )


def _metrics(port: int) -> dict[str, float]:
    """Return the server's metrics without labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    head = (
        "head | load | requests/s | times 1 client | p50 ms | p95 ms | slowest | errors | images per batch | memory MiB"
    )
    lines = [f"| {head} |", "|" + "---|" * 10]
    single_client: dict[str, float] = {}
    for row in (Measured(**row) for row in report["results"]):
        rate = row.requests / row.seconds
        ratio = rate / single_client.setdefault(row.head, rate)
        lines.append(
            f"| {row.head} | {row.load} | {rate:.1f} | {ratio:.2f} | {row.p50:.0f} | {row.p95:.0f} "
            f"| {row.slowest:.0f} | {row.errors} of {row.requests + row.errors:,} | {row.images_per_batch:.1f} "
            f"| {row.memory_first:.0f} → {row.memory_last:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
