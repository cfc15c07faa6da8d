"""Train methods on a backbone as it is and in CLIP's cone, and print what the cone changes.

    python -m tools.cone --output runs/cone --data emoji-activities --targets emoji-food emoji-animals \
        --domains emoji-activities:noto emoji-activities:fluent emoji-activities:twemoji --methods zeroshot gopro

HM is that of base-to-new on the first data set; cross-dataset trains on all of its classes and tests on the targets;
domain generalization trains on the first domain and tests on the others. The cone is fitted to one test image of each
class of that data set (see `gopro.clip.cone`). Results that the output folder already holds are not computed again;
`OUTPUT/plain` and `OUTPUT/cone` are folders that `gopro report` takes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from cyclopts import App, Parameter

from gopro.benchmark.protocols import PlannedRun, base_to_new, cross_dataset, domain_generalization
from gopro.benchmark.worker import RunFailed, Worker
from gopro.clip.backbone import Backbone, load_backbone
from gopro.clip.cone import Cosines, measure_cosines, with_cone
from gopro.clip.weights.embedded import default_backbone
from gopro.data.images.transforms import make_view
from gopro.data.load_dataset import load_dataset
from gopro.methods.parts.zero_shot_text import zero_shot_text_features
from gopro.runs.config import BenchmarkConfig, TransferConfig
from gopro.runs.results import ResultRow, Results

FIGURES = ("base", "new", "HM", "cross-dataset", "domain generalization")
app = App(name="cone", help=__doc__, default_parameter=Parameter(consume_multiple=True))


@dataclass(frozen=True)
class Comparison:
    """Data sets, methods and settings that are compared on the backbone as it is and in the cone.

    Attributes:
        data: data set of base-to-new, and source of the targets.
        targets: of cross-dataset; it is left out if there is none.
        domains: source and targets of domain generalization; it is left out if there is none.
        root: folder of the data sets.
    """

    data: str
    methods: tuple[str, ...]
    targets: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (1,)
    shots: int = 4
    epochs: int | None = None
    root: Path | None = None

    def runs(self, output: Path, backbone: str) -> list[PlannedRun]:
        """Return the training runs, with their tests."""
        shared = {
            "output": output,
            "backbones": (backbone,),
            "methods": self.methods,
            "seeds": self.seeds,
            "shots": (self.shots,),
            "epochs": self.epochs,
            "root": self.root,
            "bank": 8,
            "precision": "bf16",
            "workers": 0,
        }
        runs = base_to_new(BenchmarkConfig(data=(self.data,), **shared))
        if self.targets:
            runs += cross_dataset(TransferConfig(source=self.data, targets=self.targets, **shared))
        if self.domains:
            source, *targets = self.domains
            runs += domain_generalization(TransferConfig(source=source, targets=tuple(targets), **shared))
        return runs


@app.default
def main(
    *,
    output: Path,
    data: str,
    methods: tuple[str, ...],
    targets: tuple[str, ...] = (),
    domains: tuple[str, ...] = (),
    seeds: tuple[int, ...] = (1,),
    shots: int = 4,
    epochs: int | None = None,
    root: Path | None = None,
) -> None:
    """Print a table of accuracies in percent, with the cone, and their difference from those without."""
    comparison = Comparison(data, methods, targets, domains, seeds, shots, epochs, root)
    plain = load_backbone(default_backbone(data))
    own = cosines(plain, data, root)
    cone = with_cone(plain, own)
    print(f"without: {describe(own)}\nwith:    {describe(cosines(cone, data, root))}")
    without, inside = (
        figures(results(comparison.runs(output / name, plain.name), backbone, output / name))
        for name, backbone in (("plain", plain), ("cone", cone))
    )
    print(table(without, inside))


def cosines(backbone: Backbone, data: str, root: Path | None) -> Cosines:
    """Measure a backbone's mean cosines on one test image of each class."""
    dataset = load_dataset(data, root)
    first = {sample.label: sample.image for sample in reversed(dataset.test)}
    view = make_view("eval", backbone.preprocess)
    images = torch.stack([view(first[label].open().convert("RGB")) for label in range(len(dataset.classnames))])
    text = zero_shot_text_features(backbone.text, dataset.classnames, dataset.template)
    return measure_cosines(backbone.encode(images).embedding, text)


def describe(cosines: Cosines) -> str:
    return f"images {cosines.images:.2f}, class texts {cosines.texts:.2f}, image and text {cosines.pairs:.2f}"


def results(runs: Sequence[PlannedRun], backbone: Backbone, folder: Path) -> list[ResultRow]:
    """Do what is missing of the runs on this backbone, and return the rows of all their tests.

    Raises:
        RuntimeError: a run failed.
    """
    kept, worker = Results(folder / "results.jsonl"), Worker(backbone)
    for run in runs:
        missing = [test for test in run.tests if kept.find(test.key) is None]
        for message in worker.work(run, missing) if missing else ():
            if isinstance(message, RunFailed):
                raise RuntimeError(f"{run.name}: {message.traceback or message.error}")
            if isinstance(message, dict):
                kept.add(message)
    rows = [kept.find(test.key) for run in runs for test in run.tests]
    return [row for row in rows if row is not None]


def figures(rows: Sequence[ResultRow]) -> dict[str, dict[str, float]]:
    """Return the figures of each method, in percent: means over seeds, and over the targets of a protocol."""
    accuracies: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        if row["protocol"] == "base-to-new":
            accuracies[row["method"]][row["classes"]].append(row["accuracy"])
        elif row["data"] != row["source"]:
            accuracies[row["method"]][row["protocol"].replace("-generalization", " generalization")].append(
                row["accuracy"]
            )
    means = {method: {name: fmean(each) for name, each in by.items()} for method, by in accuracies.items()}
    for method, by in accuracies.items():
        pairs = zip(by["base"], by["new"], strict=True)
        means[method]["HM"] = fmean(2 * base * new / (base + new) for base, new in pairs)
    return means


def table(without: dict[str, dict[str, float]], inside: dict[str, dict[str, float]]) -> str:
    """Return figures in the cone, and their differences from those without it, as Markdown."""
    names = [name for name in FIGURES if name in next(iter(inside.values()))]
    lines = [f"| method | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for method, by in inside.items():
        cells = [f"{by[name]:.1f} ({by[name] - without[method][name]:+.1f})" for name in names]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    app()
