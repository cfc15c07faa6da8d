"""`gopro demo`."""

import json
import re
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gopro import cli
from gopro.benchmark.protocols import base_to_new
from gopro.cli import demo

METHODS = {"photos": ("zeroshot", "coop", "tip-adapter-f", "gopro"), "emoji-activities": ("zeroshot", "coop", "gopro")}


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the demos learn from one image per class, with the faster of the embedded models."""
    for name, one in demo.DEMOS.items():
        config = replace(one.config, shots=(1,), epochs=1, seeds=(1,), workers=0, backbones=("emoji",))
        monkeypatch.setitem(demo.DEMOS, name, replace(one, config=config))


@pytest.mark.slow
@pytest.mark.parametrize("data", demo.DEMOS)
def test_the_demo_prints_a_table_and_next_steps_and_writes_a_report(
    data: str, tmp_path: Path, few_images: None, gopro
) -> None:
    """The demo on fewer images; a second call runs nothing and prints the same."""
    tables = []
    for _ in range(2):
        code, out, err = gopro("demo", "--data", data, "--output", tmp_path)
        assert code == 0
        tables.append([line for line in out.splitlines() if "│" in line])
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert all(method in out and method in page for method in METHODS[data])
        assert "report.html" in out and "gopro train --data" in out
        assert page.count("<img ") >= 4
    assert tables[0] == tables[1] and err.startswith("0 runs to do")
    config, names = demo.DEMOS[data].config, demo.DEMOS[data].names
    commands = [command for line in demo.next_steps(config, names) for command in re.findall(r"`(gopro [^`]+)`", line)]
    for command in commands:
        cli.app.config = ()
        cli.app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)
    assert len(commands) == 3


def test_a_folder_of_an_earlier_demo_stops_it_with_what_to_type(tmp_path: Path, few_images: None, gopro) -> None:
    run = next(run for run in base_to_new(demo.DEMOS["photos"].config) if run.train.method == "coop")
    key = asdict(run.tests[0].key)
    results = tmp_path / "results.jsonl"
    for changed, reason in [({"data": "flags", "source": "flags"}, "another demo"), ({}, "an earlier version")]:
        results.write_text(json.dumps({**key, **changed, "accuracy": 50.0}) + "\n")
        code, _, err = gopro("demo", "--data", "photos", "--output", tmp_path)
        assert code == 2 and reason in err and f"rm -r {tmp_path}" in " ".join(err.split())
        assert results.read_text().count("\n") == 1
