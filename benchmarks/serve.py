"""`gopro serve` under load: many clients at once against one at a time, and against a server that takes no batches.

    python -m benchmarks.serve [--json] [--run RUN] [--clients 50] [--seconds 60] [--heads exact first-order]

Clients and server share this machine. Each client keeps its connection and asks about one image after the other, a
scene of the embedded emoji that nobody has asked about before, over the run's class names; without `--run`, a run of
`gopro` on emoji-activities (85 classes) is trained first. A row is a server process of its own: one client; many
clients where the server takes images one by one (`--batch 1`); many clients where it takes what waits. Times are a
client's, from sending to the whole answer, after 3 s that are not counted; a status other than 200 is an error. Memory
is the server's (resident), in the first and in the last fifth of the time; it keeps 4 MiB of encodings, which are of no
use here, so that the cache does not fill while it is looked at.
"""

from __future__ import annotations

import argparse
import http.client
import io
import itertools
import json
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

from benchmarks.setting import about
from gopro.data.load_dataset import load_dataset
from gopro.inference.taylor_head_file import load_or_build_head
from gopro.runs.config import TrainConfig
from gopro.runs.run import load_run
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
    images_a_batch: float
    memory_first: float
    memory_last: float


@dataclass
class Load:
    """What the clients have seen."""

    milliseconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--run", type=Path, help="folder of a trained run")
    parser.add_argument("--clients", type=int, default=50, metavar="N")
    parser.add_argument("--seconds", type=float, default=60.0, metavar="S", help="of the many clients' load")
    parser.add_argument("--baseline", type=float, default=20.0, metavar="S", help="seconds of the loads beside it")
    parser.add_argument("--heads", nargs="+", default=["exact", "first-order"], metavar="HEAD")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run = options.run or _trained(Path(scratch) / "run")
        report = measure(run, options)
    if options.json:
        print(json.dumps(report))
    else:
        print(f"{report['machine']}, {report['threads']} threads, torch {report['torch']}")
        print(table(report))


def _trained(folder: Path) -> Path:
    train(TrainConfig(data=DATA, method="gopro", shots=2, epochs=1, bank=1, workers=0, output=folder, device="cpu"))
    return folder


def measure(run: Path, options: argparse.Namespace) -> dict[str, Any]:
    """All rows."""
    trained = load_run(run)
    if "first-order" in options.heads:
        load_or_build_head(trained, trained.method.classnames)  # or the first to ask would wait for it
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
                rows.append(loaded(port, head, load, clients, seconds, images))
    return {**about(), "classes": len(trained.method.classnames), "results": [asdict(row) for row in rows]}


def _images() -> list[bytes]:
    """Test scenes as PNG files."""
    files = []
    for sample in load_dataset(DATA).test:
        file = io.BytesIO()
        sample.image.open().save(file, "PNG")
        files.append(file.getvalue())
    return files


@contextmanager
def server(run: Path, *arguments: str) -> Iterator[int]:
    """The port of a server process."""
    command = [sys.executable, "-m", "gopro.cli", "serve", str(run), "--port", "0", *arguments]
    command += ["--device", "cpu", "--encodings-mib", "4"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    try:
        said = process.stderr.readline()
        if not (found := re.search(r"http://127\.0\.0\.1:(\d+)", said)):
            raise SystemExit(said + process.stderr.read())
        yield int(found[1])
    finally:
        process.terminate()
        process.wait()
        process.stderr.close()


def loaded(
    port: int, head: str, load: str, clients: int, seconds: float, images: Sequence[bytes], warm_up: float = WARM_UP
) -> Measured:
    """A server under the load of so many clients."""
    seen, counter, begin = Load(), itertools.count(), time.perf_counter() + warm_up
    threads = [
        threading.Thread(target=_client, args=(port, head, images, counter, begin, begin + seconds, seen))
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
    if not seen.milliseconds:
        raise SystemExit(f"{head}, {load}: no answer in {seconds} s ({', '.join(seen.errors[:1])})")
    if seen.errors:
        print(f"{head}, {load}: {seen.errors[0]}", file=sys.stderr)
    batches, encoded = (
        last[f"gopro_tower_images_{part}"] - first[f"gopro_tower_images_{part}"] for part in ("count", "sum")
    )
    times, fifth = sorted(seen.milliseconds), max(1, len(memory) // 5)
    return Measured(
        head=head,
        load=load,
        seconds=seconds,
        requests=len(times),
        errors=len(seen.errors),
        p50=statistics.median(times),
        p95=times[int(0.95 * len(times))],
        slowest=times[-1],
        images_a_batch=encoded / batches,
        memory_first=statistics.mean(memory[:fifth]),
        memory_last=statistics.mean(memory[-fifth:]),
    )


def _client(
    port: int, head: str, images: Sequence[bytes], counter: Iterator[int], begin: float, end: float, seen: Load
) -> None:
    """Asks one question after the other; those that are answered between `begin` and `end` count."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    kind = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
    while (sent := time.perf_counter()) < end:
        number = next(counter)
        # Bytes behind a PNG's end are nothing to a decoder, but make another file of it.
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
                seen.milliseconds.append(1000 * (now - sent))
            else:
                seen.errors.append(f"{status} {answer[:200]!r}")
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
    """Those without labels."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return {name: float(value) for name, value in re.findall(r"^(\w+) (\S+)$", text, re.MULTILINE)}


def table(report: dict[str, Any]) -> str:
    """The report in Markdown."""
    head = (
        "head | load | requests/s | times 1 client | p50 ms | p95 ms | slowest | errors | images a batch | memory MiB"
    )
    lines = [f"| {head} |", "|" + "---|" * 10]
    alone: dict[str, float] = {}
    for row in (Measured(**row) for row in report["results"]):
        rate = row.requests / row.seconds
        alone.setdefault(row.head, rate)
        lines.append(
            f"| {row.head} | {row.load} | {rate:.1f} | {rate / alone[row.head]:.2f} | {row.p50:.0f} | {row.p95:.0f} "
            f"| {row.slowest:.0f} | {row.errors} of {row.requests + row.errors:,} | {row.images_a_batch:.1f} "
            f"| {row.memory_first:.0f} → {row.memory_last:.0f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
