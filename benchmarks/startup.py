"""Measure the time until the command line answers.

    python -m benchmarks.startup [--json] [--runs 5]

Times are wall-clock seconds of whole processes, the median of the runs. The commands alternate, so that other work on
the machine slows all of them alike, after one round that fills the disk cache. Printing help or rejecting a flag must
not import torch, so these are compared with an empty Python; classifying one image must, so it is compared with
importing torch and open_clip alone. It uses a run of zero-shot CLIP on the embedded backbone.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import gopro
from benchmarks.common import about, make_parser, print_report


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run, image = Path(folder) / "run", Path(folder) / "image.png"
        gopro.train(gopro.TrainConfig(data="emoji-activities", method="zeroshot", workers=0, output=run))
        gopro.load_dataset("emoji-activities").test[0].image.open().save(image)
        seconds = measure(commands(run, image), options.runs)
    print_report({**about(), "runs": options.runs, "seconds": seconds}, table, options.json)


def commands(run: Path, image: Path) -> dict[str, list[str]]:
    """Return the arguments of Python for each row of the table."""
    cli = ["-m", "gopro.cli"]
    return {
        "`python -c pass`": ["-c", "pass"],
        "`import gopro`": ["-c", "import gopro"],
        "`gopro --version`": [*cli, "--version"],
        "`gopro --help`": [*cli, "--help"],
        "`gopro train --help`": [*cli, "train", "--help"],
        "`gopro train --dta x`": [*cli, "train", "--dta", "x"],
        "`import torch, open_clip`": ["-c", "import torch, open_clip"],
        "`gopro predict RUN IMAGE`": [*cli, "predict", str(run), str(image)],
    }


def measure(arguments: dict[str, list[str]], runs: int) -> dict[str, float]:
    """Return the median seconds of each command."""
    seconds: dict[str, list[float]] = {name: [] for name in arguments}
    for turn in range(runs + 1):
        for name, words in arguments.items():
            started = time.perf_counter()
            subprocess.run([sys.executable, *words], capture_output=True, check=False)
            if turn:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in seconds.items()}


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    lines = ["| command | seconds |", "|---|--:|"]
    lines += [f"| {name} | {seconds:.2f} |" for name, seconds in report["seconds"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
