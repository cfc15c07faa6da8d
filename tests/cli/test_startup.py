"""The command line answers without importing what takes seconds to import (benchmarks/startup.py has the times)."""

import json
import os
import re
import subprocess
import sys

import pytest

from gopro import cli

HEAVY = ["torch", "torchvision", "open_clip", "numpy", "scipy", "matplotlib", "lightning_fabric", "huggingface_hub"]

PROGRAM = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from gopro.cli import main

report = {}
for command in sys.argv[1:]:
    with suppress(SystemExit), redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        main(command.split())
    report[command] = [out.getvalue(), err.getvalue(), sorted(sys.modules)]
print(json.dumps(report))
"""

HELP = [
    "--version",
    "--help",
    "train --help",
    "predict --help",
    "head --help",
    "push --help",
    "import --help",
    "export --help",
    "benchmark --help",
    "report --help",
    "data --help",
    "cache --help",
    "methods --help",
    "demo --help",
]
MISTYPED = [
    "trian",
    "train --dta x",
    "eval --hlp",
    "serve --prot 80",
    "benchmark base-to-new --mehtods coop",
    "data list --szies",
    "cache prune --al",
]


def test_help_and_mistyped_flags_import_nothing_heavy() -> None:
    environment = {**os.environ, "COLUMNS": "200"}
    program = [sys.executable, "-c", PROGRAM, *HELP, *MISTYPED]
    done = subprocess.run(program, capture_output=True, text=True, check=True, env=environment)
    report = json.loads(done.stdout)
    for command, (_, err, modules) in report.items():
        assert set(HEAVY) & set(modules) == set(), command
        assert err.startswith("error: ") == (command in MISTYPED), command
    summaries = {
        "train": "Train a method on a few labelled images per class.",
        "cache": "Show the size of the image feature cache, or prune it.",
        "demo": "Run base-to-new on images in the package and write a report.",
    }
    for command, summary in summaries.items():
        assert re.search(rf"{command} +{re.escape(summary)}", report["--help"][0])


@pytest.mark.parametrize(
    ("given", "expected"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "ACTIVE"}, None)],
)
def test_threads_sleep_soon_unless_the_user_says_otherwise(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, "")  # so that what the command sets is undone
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    cli.main(["--version"])
    assert os.environ.get("GOMP_SPINCOUNT") == expected
