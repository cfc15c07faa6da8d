"""The command line answers without importing what takes seconds to import (benchmarks/startup.py has the times)."""

import json
import subprocess
import sys

HEAVY = ["torch", "torchvision", "open_clip", "numpy", "scipy", "matplotlib", "lightning_fabric", "huggingface_hub"]

PROGRAM = """
import json, sys
from contextlib import redirect_stderr, redirect_stdout, suppress
from io import StringIO
from gopro.cli import main

report = {}
for command in sys.argv[1:]:
    with suppress(SystemExit), redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors:
        main(command.split())
    report[command] = [errors.getvalue(), sorted(sys.modules)]
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
    done = subprocess.run([sys.executable, "-c", PROGRAM, *HELP, *MISTYPED], capture_output=True, text=True, check=True)
    for command, (errors, modules) in json.loads(done.stdout).items():
        assert set(HEAVY) & set(modules) == set(), command
        assert errors.startswith("error: ") == (command in MISTYPED), command
