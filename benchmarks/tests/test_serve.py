"""The load benchmark of the server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import serve
from gopro.clip.backbone import load_backbone
from tests.support.serve import png, serve_in_thread, untrained_run


def test_counts_what_the_server_computed(tmp_path: Path) -> None:
    """Every request is about another image; a request that is refused is an error and not an answer."""
    images = [png(i) for i in range(3)]
    with serve_in_thread(untrained_run("coop", load_backbone("emoji"), ["fox", "owl"], tmp_path)) as server:
        measured = serve.run_load(server.port, "zeroshot", "4 clients", 4, 0.5, images, warm_up=0)
        assert measured.errors == 0 and 0 < measured.p50 <= measured.p95 <= measured.slowest < 1000
        batches = server.tower_batches
        assert 0 <= sum(batches) - measured.requests <= 4  # answers that came too late to count
        assert measured.images_per_batch == pytest.approx(sum(batches) / len(batches), rel=0.5)
        [line] = serve.table({"results": [asdict(measured)]}).splitlines()[2:]
        assert line.startswith(f"| zeroshot | 4 clients | {measured.requests / 0.5:.1f} | 1.00 |")
        with pytest.raises(SystemExit, match=r"no answer.*no_such_head"):
            serve.run_load(server.port, "none", "1 client", 1, 0.1, images, warm_up=0)
