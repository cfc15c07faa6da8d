"""Compare methods and settings on images that no reported figure uses.

    python -m tools.tune_gopro --methods zeroshot coop gopro "gopro[con=0]" [--seeds 11 12 13] [--output FILE]

Trials use only the base classes of emoji-objects: the first half serves as base classes for training, the second half
as new classes. The columns Base and New come from training in the style twemoji. DG comes from training in the style
noto and is the mean over the four other styles on the trained classes. Accuracies are on validation images. A method
may end in `@` and training settings: `gopro@epochs=10,batch=8`. Each trial is a line of the output file; trials already
in that file are not repeated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev

import torch
import yaml

from gopro.clip.backbone import load_backbone
from gopro.data.dataset import Dataset
from gopro.data.emoji import STYLES
from gopro.data.load_dataset import load_dataset
from gopro.data.transforms import stable_seed
from gopro.inference.evaluate import evaluate_images
from gopro.methods.base import Method
from gopro.methods.recipe import Conditions, Training
from gopro.methods.registry import parse_method
from gopro.runs.config import TrainConfig
from gopro.runs.results import ResultRow, append_json
from gopro.training.devices import Runtime, make_fabric
from gopro.training.loop import fit

SET, STYLE, SOURCE = "emoji-objects", "twemoji", "noto"
CACHED_DRAWS = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[11, 12, 13])
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--output", type=Path, default=Path("runs/tune.jsonl"))
    options = parser.parse_args()
    rows = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    done = {(row["method"], row["seed"], row["shots"]) for row in rows}
    bench = Bench()
    for seed in options.seeds:
        for method in options.methods:
            if (method, seed, options.shots) not in done:
                row = bench.trial(method, seed, options.shots)
                append_json(options.output, row)
                rows.append(row)
                print(row, flush=True)
    print(table(rows))


class Bench:
    """The data and the backbone of all trials."""

    def __init__(self) -> None:
        self.backbone = load_backbone("emoji")
        self.styles = {style: load_dataset(f"{SET}:{style}").half("base") for style in STYLES}

    def trial(self, spec: str, seed: int, shots: int) -> ResultRow:
        """Train a method in both styles and return its accuracies in percent."""
        base, new = (self.styles[STYLE].half(half) for half in ("base", "new"))
        method, seconds = self.train(spec, base, seed, shots)
        own, other = accuracy(method, base), accuracy(method, new)
        method, more = self.train(spec, self.styles[SOURCE].half("base"), seed, shots)
        domains = [accuracy(method, self.styles[style].half("base")) for style in STYLES if style != SOURCE]
        figures = {"base": own, "new": other, "hm": 2 * own * other / (own + other), "dg": fmean(domains)}
        return {"method": spec, "seed": seed, "shots": shots, **figures, "seconds": (seconds + more) / 2}

    def train(self, spec: str, data: Dataset, seed: int, shots: int) -> tuple[Method, float]:
        """Return a method trained on `data`, and the seconds of training."""
        few = data.few_shot(shots, seed)
        name, _, settings = spec.partition("@")
        config = TrainConfig(
            data=data.name, output=Path(), precision="bf16", bank=CACHED_DRAWS, device="cpu", workers=0
        )
        config = replace(
            config, **{k: yaml.safe_load(v) for k, _, v in (s.partition("=") for s in settings.split(",") if s)}
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stable_seed(seed, "start"))
            spec, recipe = parse_method(name).for_training(Conditions("base-to-new", data.name, shots))
            method = spec.build(self.backbone, data.classnames, data.template)
        if Training.STEPS not in method.trained_by:
            return method, 0.0
        with tempfile.TemporaryDirectory() as folder:
            config = replace(config, output=Path(folder), seed=seed)
            fitted = fit(method, few, config.recipe(recipe, data.crop), config, Runtime(make_fabric(config)))
        return method, fitted.seconds


def accuracy(method: Method, data: Dataset) -> float:
    """Return the accuracy on validation images, in percent."""
    return evaluate_images(method.for_classes(data.classnames, data.template), data.val).accuracy


def table(rows: Sequence[ResultRow]) -> str:
    """Return means over seeds and standard deviations of HM and DG as Markdown."""
    by_method: dict[tuple[str, int], list[ResultRow]] = defaultdict(list)
    for row in rows:
        by_method[row["method"], row["shots"]].append(row)
    lines = ["| method | shots | seeds | base | new | HM | DG | seconds |", "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for (method, shots), trials in by_method.items():
        cells = []
        for name in ("base", "new", "hm", "dg", "seconds"):
            figures = [row[name] for row in trials]
            spread = f" ± {stdev(figures):.1f}" if name in ("hm", "dg") and len(trials) > 1 else ""
            cells.append(f"{fmean(figures):.1f}{spread}")
        lines.append(f"| `{method}` | {shots} | {len(trials)} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
