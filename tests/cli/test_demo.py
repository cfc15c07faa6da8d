"""`gopro demo`."""

import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest

from gopro import cli
from gopro.cli import demo


@pytest.mark.slow
def test_the_demo_prints_a_table_and_next_steps_and_writes_a_report(tmp_path: Path, monkeypatch, gopro) -> None:
    """The demo on fewer images; a second call runs nothing and prints the same."""
    monkeypatch.setattr(demo, "CONFIG", replace(demo.CONFIG, shots=(1,), epochs=1, seeds=(1,), workers=0))
    tables = []
    for _ in range(2):
        code, out, err = gopro("demo", "--output", tmp_path)
        assert code == 0
        tables.append([line for line in out.splitlines() if "│" in line])
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert all(method in out and method in page for method in ("zeroshot", "coop", "gopro"))
        assert "report.html" in out and "gopro train --data" in out
        assert page.count("<img ") >= 4
    assert tables[0] == tables[1] and err.startswith("0 runs to do")
    commands = [command for line in demo.next_steps(demo.CONFIG) for command in re.findall(r"`(gopro [^`]+)`", line)]
    for command in commands:
        cli.app.config = ()
        cli.app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)
    assert len(commands) == 3
