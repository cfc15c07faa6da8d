"""Trials of methods and settings, on pictures that no reported figure comes from.

    python -m tools.tune_gopro --methods zeroshot coop gopro "gopro[anchor=8]" [--seeds 11 12 13] [--output FILE]

Only validation pictures of emoji-objects' base classes are looked at: their first half is trained on and plays the base
classes, their second half the new ones. DG is the mean over the four other styles, base classes. Each trial is a line
of the output; trials that are there are not repeated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev

import torch
from lightning_fabric import Fabric

from gopro.backbone import load_backbone
from gopro.data import Dataset, load_dataset
from gopro.data.dataset import Sample
from gopro.data.emoji import STYLES
from gopro.evaluate import EncodedSamples, encode_samples, evaluate, evaluate_pictures
from gopro.fit import fit
from gopro.methods import Method, build_method
from gopro.results import Row, append_json
from gopro.views import stable_seed

SET, STYLE = "emoji-objects", "twemoji"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--seeds", nargs="+", type=int, default=[11, 12, 13])
    parser.add_argument("--shots", type=int, default=8)
    parser.add_argument("--output", type=Path, default=Path("runs/tune.jsonl"))
    options = parser.parse_args()
    there = [json.loads(line) for line in options.output.read_text().splitlines()] if options.output.exists() else []
    done = {(row["method"], row["seed"], row["shots"]) for row in there}
    bench = Bench()
    for seed in options.seeds:
        for method in options.methods:
            if (method, seed, options.shots) not in done:
                row = bench.trial(method, seed, options.shots)
                append_json(options.output, row)
                there.append(row)
                print(row, flush=True)
    print(table(there))


class Bench:
    """The data and the backbone of all trials, and the pictures it has seen."""

    def __init__(self) -> None:
        self.backbone = load_backbone("emoji")
        self.styles = {style: load_dataset(f"{SET}:{style}").half("base") for style in STYLES}
        self.seen: dict[str, EncodedSamples] = {}

    def trial(self, spec: str, seed: int, shots: int) -> Row:
        """Trains a method and gives its accuracies in percent."""
        base, new = self.styles[STYLE].half("base"), self.styles[STYLE].half("new")
        few = base.few_shot(shots, seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stable_seed(seed, "start"))
            method = build_method(spec, self.backbone, base.classnames, base.template)
        seconds = 0.0
        if method.recipe is not None:
            with tempfile.TemporaryDirectory() as folder:
                fabric = Fabric(accelerator="cpu", devices=1)
                seconds = fit(method, few.train, method.recipe, fabric, seed=seed, folder=Path(folder))
        own, other = self.accuracy(method, base, "base", base.val), self.accuracy(method, new, "new", new.val)
        domains = [
            self.accuracy(method, base, style, self.styles[style].half("base").val)
            for style in STYLES
            if style != STYLE
        ]
        figures = {"base": own, "new": other, "hm": 2 * own * other / (own + other), "dg": fmean(domains)}
        return {"method": spec, "seed": seed, "shots": shots, **figures, "seconds": seconds}

    def accuracy(self, method: Method, data: Dataset, name: str, samples: Sequence[Sample]) -> float:
        method = method.for_classes(data.classnames)
        if not method.frozen_images:
            return evaluate_pictures(method, samples).accuracy
        if name not in self.seen:
            self.seen[name] = encode_samples(method, samples)
        return evaluate(method, self.seen[name]).accuracy


def table(rows: Sequence[Row]) -> str:
    """Means over seeds and the spread of HM, as Markdown."""
    by_method: dict[tuple[str, int], list[Row]] = defaultdict(list)
    for row in rows:
        by_method[row["method"], row["shots"]].append(row)
    lines = ["| method | shots | seeds | base | new | HM | DG | seconds |", "|---|--:|--:|--:|--:|--:|--:|--:|"]
    for (method, shots), trials in by_method.items():
        means = [f"{fmean(row[name] for row in trials):.1f}" for name in ("base", "new", "hm", "dg", "seconds")]
        if len(trials) > 1:
            means[2] += f" ± {stdev(row['hm'] for row in trials):.1f}"
        lines.append(f"| {method} | {shots} | {len(trials)} | {' | '.join(means)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
