"""Run the speed benchmarks and write what they say into RESULTS.md.

    python -m benchmarks.record [--reference PATH] [--only NAME ...]

Each has its section of RESULTS.md, which is replaced as a whole: what it measures, the command, the machine, the
table. Run it while nothing else computes.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
PLOT = "benchmarks/plots/scaling.png"
SECTIONS: dict[str, tuple[str, list[str]]] = {  # benchmark: heading, arguments
    "roof": ("What the machine can do", []),
    "flops": ("What a step must do", []),
    "where": ("Where the time of a step goes", []),
    "train_step": ("Training step", []),
    "evaluate": ("Classifying an image", []),
    "scaling": ("Cost against classes and batch", ["--plot", PLOT]),
    "input": ("Does the step wait for its images", []),
    "compiled": ("Whether torch.compile pays", []),
    "text_tower": ("Packed text tower against full text", ["--classes", "50"]),
    "serve": ("Serving", []),
    "startup": ("Start-up", []),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference", type=Path, metavar="PATH", help="checkout of the released code")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=list(SECTIONS), metavar="NAME")
    options = parser.parse_args()
    for name in options.only:
        heading, arguments = SECTIONS[name]
        shown = arguments
        if options.reference and name in ("train_step", "evaluate"):
            arguments, shown = [*arguments, "--reference", str(options.reference)], [*arguments, "--reference PATH"]
        command, started = [sys.executable, "-m", f"benchmarks.{name}", "--json", *arguments], time.perf_counter()
        print(name, end=" ", flush=True)
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(f"failed with exit status {done.returncode}")
        print(f"{time.perf_counter() - started:.0f} s", flush=True)
        body = section(name, heading, shown, done.stdout)
        RESULTS.write_text(replaced(RESULTS.read_text(), heading, body))


def section(name: str, heading: str, arguments: list[str], output: str) -> str:
    """The section of a benchmark that printed this."""
    module, report = importlib.import_module(f"benchmarks.{name}"), json.loads(output)
    what = re.split(r"\n *python -m .*\n", module.__doc__ or "")
    command = " ".join(["python -m", f"benchmarks.{name}", *arguments])
    lines = [f"## {heading}", "", f"    {command}", "", *(part.strip() + "\n" for part in what)]
    lines += [f"{report['machine']}, {report['threads']} threads, torch {report['torch']}.", "", module.table(report)]
    if "--plot" in arguments:
        lines += ["", f"![{heading}](plots/{Path(PLOT).name})"]
    return "\n".join(lines) + "\n"


def replaced(text: str, heading: str, body: str) -> str:
    """RESULTS.md's text with the section of that heading replaced, or at the end where it is new."""
    start = text.find(f"## {heading}\n")
    if start < 0:
        return f"{text.rstrip()}\n\n{body}"
    end = text.find("\n## ", start)
    return text[:start] + body + ("" if end < 0 else text[end:])


if __name__ == "__main__":
    main()
