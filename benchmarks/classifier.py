"""From a folder of images to a tested classifier: ours, and what an expert would write.

    python -m benchmarks.classifier [--json] [--data FOLDER] [--shots 16] [--backbone photo] [--seeds 1 2 3]

Ours is `gopro train --data FOLDER --shots K`, then `gopro eval`, with an empty feature cache. The expert's program
(expert_classifier.py) takes the features of the same image tower by timm and fits scikit-learn's logistic regression,
its C chosen by the accuracy on the validation images, of which there are min(K, 4) per class. Both have the same images
of the same split. Seconds are those of whole commands, imports included; CPU seconds add up all processes. All figures
are means over the seeds. scikit-learn comes with the extra `dev`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import open_clip
import torch

from benchmarks.common import about, make_parser, print_report
from gopro.clip.weights.embedded import EMBEDDED
from gopro.clip.weights.load_embedded import load_embedded
from gopro.data.dataset import Dataset
from gopro.data.images.image_file import ImageFile
from gopro.data.load_dataset import load_dataset

EXPERT = "timm + logistic regression"


@dataclass(frozen=True)
class Measured:
    """One way to the classifier with one seed; accuracy in percent of n test images."""

    way: str
    seed: int
    accuracy: float
    n: int
    seconds: float
    cpu_seconds: float


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--data", default="photos", help="folder or data set of image files (default: %(default)s)")
    parser.add_argument("--root", type=Path, help="folder that contains the benchmark data sets")
    parser.add_argument("--shots", type=int, default=8, metavar="K")
    parser.add_argument("--backbone", default="photo", metavar="NAME", help="as gopro train takes it")
    parser.add_argument("--methods", nargs="+", default=["gopro"], metavar="METHOD")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], metavar="SEED")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="reader processes of either (default: 2)")
    options = parser.parse_args()
    if find_spec("sklearn") is None:
        raise SystemExit("the expert's program needs scikit-learn: pip install scikit-learn")
    print_report(compare(options), table, options.json)


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure all ways with all seeds, in turn, so that other work on the machine slows all alike."""
    dataset = load_dataset(options.data, options.root)
    measured: list[Measured] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tower = write_tower(options.backbone, folder / "tower.pt")
        for seed in options.seeds:
            measured += [
                ours(method, seed, options, folder / f"{i}-{seed}") for i, method in enumerate(options.methods)
            ]
            measured.append(expert(dataset, seed, options, tower, folder / f"plan-{seed}.json"))
    classes = len(dataset.classnames)
    settings = {"data": dataset.name, "classes": classes, "shots": options.shots, "backbone": options.backbone}
    return {**about(), **settings, "results": [asdict(m) for m in measured]}


def ours(method: str, seed: int, options: argparse.Namespace, folder: Path) -> Measured:
    """Train and evaluate a method by the commands of a user."""
    run, root = str(folder / "run"), ["--root", str(options.root)] if options.root else []
    cache = {"GOPRO_CACHE": str(folder / "cache")}
    train = ["train", "--data", options.data, *root, "--method", method, "--backbone", options.backbone]
    train += ["--shots", str(options.shots), "--seed", str(seed), "--workers", str(options.workers), "--output", run]
    test = ["eval", run, *root, "--workers", str(options.workers)]
    clock = [timed([sys.executable, "-m", "gopro.cli", *command], cache) for command in (train, test)]
    [file] = (folder / "run").glob("eval-*.json")
    result = json.loads(file.read_text())
    seconds, cpu = (sum(times[i] for times in clock) for i in (0, 1))
    return Measured(method, seed, result["accuracy"], result["n"], seconds, cpu)


def expert(dataset: Dataset, seed: int, options: argparse.Namespace, tower: dict[str, Any], plan: Path) -> Measured:
    """Run the expert's program on the images that ours has."""
    drawn = dataset.few_shot(options.shots, seed)
    listed = {split: [(_path(s.image), s.label) for s in drawn.split(split)] for split in ("train", "val", "test")}
    plan.write_text(json.dumps({**tower, **listed, "workers": options.workers}))
    seconds, cpu, output = timed([sys.executable, "-m", "benchmarks.expert_classifier", str(plan)])
    result = json.loads(output)
    return Measured(EXPERT, seed, result["accuracy"], result["n"], seconds, cpu)


def timed(command: list[str], variables: dict[str, str] | None = None) -> tuple[float, float, str]:
    """Run a command; return its seconds, the processor seconds of it and its children, and what it printed."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, env={**os.environ, **(variables or {})}, stdout=subprocess.PIPE, text=True)
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with exit status {done.returncode}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def write_tower(backbone: str, file: Path) -> dict[str, Any]:
    """Write the image tower of a backbone for the expert's program.

    Returns:
        The file, the name of timm's model if the tower is one, and the preparation of images.
    """
    if backbone in EMBEDDED:
        model, preprocess = load_embedded(backbone)
    else:
        architecture, _, weights = backbone.partition(":")
        model = open_clip.create_model(architecture, pretrained=weights)
        preprocess = open_clip.get_model_preprocess_cfg(model)
    visual = model.visual.eval().requires_grad_(False)
    trunk = getattr(visual, "trunk", None)
    torch.save(visual if trunk is None else trunk.state_dict(), file)
    size = preprocess["size"]
    return {
        "weights": str(file),
        "timm_model": None if trunk is None else trunk.pretrained_cfg["architecture"],
        "size": size if isinstance(size, int) else size[0],
        "mean": list(preprocess["mean"]),
        "std": list(preprocess["std"]),
    }


def _path(image: Any) -> str:
    if not isinstance(image, ImageFile):
        raise SystemExit(f"{image.name}: not a file; give --data FOLDER, or a data set of image files such as photos")
    return str(image.path)


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    results = [Measured(**m) for m in report["results"]]
    lines = [
        f"{report['classes']} classes of {report['data']}, {report['shots']} images per class, backbone "
        f"{report['backbone']}, {results[0].n} test images.",
        "",
        "| | accuracy | seconds | CPU seconds |",
        "|---|--:|--:|--:|",
    ]
    for way in dict.fromkeys(m.way for m in results):
        here = [m for m in results if m.way == way]
        accuracy, seconds, cpu = (
            statistics.mean(getattr(m, field) for m in here) for field in ("accuracy", "seconds", "cpu_seconds")
        )
        lines.append(f"| {way} | {accuracy:.2f} % | {seconds:.1f} | {cpu:.1f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
