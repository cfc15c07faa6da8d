"""Run the speed benchmarks and write their reports into RESULTS.md.

    python -m benchmarks.write_results [--reference PATH] [--only NAME ...]

Each benchmark has a section of RESULTS.md, which is replaced as a whole: the command, the text of its docstring, the
machine and the table. Run this on an idle machine.
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
    "roofline": ("Limits of the machine", []),
    "flops": ("Operations of a training step", []),
    "profile_step": ("Profile of a training step", []),
    "train_step": ("Training step", []),
    "evaluate": ("Classifying an image", []),
    "scaling": ("Cost by number of classes and batch size", ["--plot", PLOT]),
    "input": ("Loading of images", []),
    "compiled": ("torch.compile", []),
    "text_tower": ("Packed and full-length text encoding", ["--classes", "50"]),
    "serve": ("Serving", []),
    "startup": ("Start-up", []),
    "classifier": ("From a folder of images to a classifier", []),
    "cost": ("What each method costs", []),
    "predict": ("Predicting", []),
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
        RESULTS.write_text(replace_section(RESULTS.read_text(), heading, body))


def section(name: str, heading: str, arguments: list[str], output: str) -> str:
    """Return the section of a benchmark from its JSON output."""
    module, report = importlib.import_module(f"benchmarks.{name}"), json.loads(output)
    paragraphs = re.split(r"\n *python -m .*\n", module.__doc__ or "")
    command = " ".join(["python -m", f"benchmarks.{name}", *arguments])
    lines = [f"## {heading}", "", f"    {command}", "", *(part.strip() + "\n" for part in paragraphs)]
    lines += [f"{report['machine']}, {report['threads']} threads, torch {report['torch']}.", "", module.table(report)]
    if "--plot" in arguments:
        lines += ["", f"![{heading}](plots/{Path(PLOT).name})"]
    return "\n".join(lines) + "\n"


def replace_section(text: str, heading: str, body: str) -> str:
    """Return a text with the section under `heading` replaced, or appended if there is none."""
    start = text.find(f"## {heading}\n")
    if start < 0:
        return f"{text.rstrip()}\n\n{body}"
    end = text.find("\n## ", start)
    return text[:start] + body + ("" if end < 0 else text[end:])


if __name__ == "__main__":
    main()
