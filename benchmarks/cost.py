"""What each method costs: learned numbers, seconds of a training, and milliseconds of classifying an image.

    python -m benchmarks.cost [--json] [--backbones photo emoji ViT-B-16] [--classes 50] [--shots 4] [--methods ...]

Each method is trained by its recipe for base-to-new, without a view bank. A training is not run to its end: some of its
steps are timed, image tower included, and their median is multiplied by their number; what is solved in closed form is
timed once, on features, and the image tower's time for the images that it asks for is added. Making views is not timed.
Classifying an image is timed in batches, and `beside the tower` is the part that is not the image tower's; text that
does not depend on the image is encoded before, and methods that learn inside the tower have no such part. ViT-B-16 has
random weights, which change no time. The methods take turns, so that other work on the machine slows all alike. Seconds
are CPU seconds of all threads. HM is the average of base-to-new in docs/example-photos and docs/example.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.common import Stopwatch, about, class_names, make_backbone, make_parser, make_views, print_report
from gopro.clip.backbone import Backbone, Encoded, load_backbone
from gopro.clip.image_tower_kind import other_than_vit
from gopro.clip.weights.embedded import EMBEDDED
from gopro.data.images.loader import EpochBatches
from gopro.inference.evaluate import logits_function
from gopro.methods.recipe import Conditions, Training
from gopro.methods.registry import METHODS, parse_method
from gopro.methods.template import DEFAULT_TEMPLATE
from gopro.runs.results import Results
from gopro.training.loop import make_optimizer
from tools.benchmark_tables import EXAMPLE, PHOTOS, averages

ACCURACY = {"photo": PHOTOS, "emoji": EXAMPLE}
"""The results that a backbone's HM are from."""
TESTED = 32
"""Images that are classified at once."""


@dataclass(frozen=True)
class Cost:
    """The cost of one method on one backbone.

    Attributes:
        parameters: learned numbers, as results.jsonl counts them.
        steps: training steps; 0 for closed forms.
        step: CPU seconds of one, image tower included.
        closed: CPU seconds of what is solved in closed form.
        image: CPU seconds of classifying one image, image tower included.
        head: the part of it that is not the image tower's.
    """

    backbone: str
    method: str
    parameters: int
    steps: int
    step: float
    closed: float
    image: float
    head: float

    @property
    def training(self) -> float:
        """CPU seconds of the whole training."""
        return self.steps * self.step + self.closed


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--backbones", nargs="+", default=["photo", "emoji", "ViT-B-16"], metavar="NAME")
    parser.add_argument("--methods", nargs="+", default=[m for m in METHODS if m != "gopro-kernel"], metavar="METHOD")
    parser.add_argument("--classes", type=int, default=50, metavar="C")
    parser.add_argument("--shots", type=int, default=4, metavar="K")
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="calls to take the median of")
    options = parser.parse_args()
    report = measure(options.backbones, options.methods, options.classes, options.shots, options.runs)
    print_report(report, table, options.json)


def measure(backbones: list[str], methods: list[str], classes: int, shots: int, runs: int) -> dict[str, Any]:
    """Measure the cost of each method on each backbone that can carry it."""
    names, costs = class_names(classes), []
    for name in backbones:
        backbone = load_backbone(name) if name in EMBEDDED else make_backbone(name)
        images = make_views(1, TESTED, backbone.preprocess.size)[0]
        vit = other_than_vit(name) is None
        trials = [
            _Trial(method, backbone, names, shots)
            for method in methods
            if vit or not parse_method(method).kind.needs_vit
        ]
        for _ in range(runs):
            for trial in trials:
                trial.run(images)
        costs += [trial.cost(name) for trial in trials]
    return {**about(), "classes": classes, "shots": shots, "costs": [asdict(cost) for cost in costs]}


class _Trial:
    """One method on one backbone, with a clock for each part of its cost."""

    def __init__(self, name: str, backbone: Backbone, classnames: list[str], shots: int):
        spec, self.recipe = parse_method(name).for_training(Conditions("base-to-new", "", shots))
        self.name, self.method = name, spec.build(backbone, classnames, DEFAULT_TEMPLATE)
        self.labels = torch.arange(len(classnames) * shots) % len(classnames)
        self.step, self.closed, self.classified, self.tower = Stopwatch(), Stopwatch(), Stopwatch(), Stopwatch()
        self.drawn = 0
        parameters = list(self.method.parameters())
        self.optimizer = make_optimizer(parameters, self.recipe) if Training.STEPS in spec.kind.trained_by else None

    def run(self, images: Tensor) -> None:
        """Time each part once, on one batch of images to classify."""
        with torch.no_grad():
            features = self.tower.time(self.method.backbone.encode, images)
        if Training.CLOSED_FORM in self.method.trained_by and not self.closed.walls:
            self.closed.time(self._solve, features)
        if self.optimizer is not None:
            batch = min(self.recipe.batch, len(self.labels))
            views = make_views(len(self.method.views), batch, images.shape[-1])
            self.step.time(self._step, views, self.labels[:batch])
        classify = logits_function(self.method.eval())
        with torch.no_grad():
            self.classified.time(classify, features if self.method.frozen_images else images)

    def _step(self, views: Tensor, labels: Tensor) -> None:
        assert self.optimizer is not None
        self.method.train()
        self.optimizer.zero_grad()
        losses = self.method(self.method.encode(views), labels)
        torch.stack(list(losses.values())).sum().backward()
        self.optimizer.step()

    def _solve(self, encoded: Encoded) -> None:
        """Learn in closed form from the features of as many images as the training has."""
        images = encoded[torch.arange(len(self.labels)) % len(encoded.embedding)]

        def draws(count: int) -> Iterator[Encoded]:
            self.drawn += max(count, 1)
            yield from [images] * max(count, 1)

        self.method.solve(draws, self.labels)
        if self.optimizer is not None:
            self.method.end_epoch(self.recipe.epochs - 1, self.recipe.epochs)

    def cost(self, backbone: str) -> Cost:
        """Return the medians of what was timed."""
        tower, classified = self.tower.cpu / TESTED, self.classified.cpu / TESTED
        image = tower + classified if self.method.frozen_images else classified
        batches = EpochBatches(len(self.labels), self.recipe.batch, seed=1, drop_last=self.recipe.drop_last)
        closed = self.closed.cpu + self.drawn * len(self.labels) * tower if self.closed.walls else 0.0
        return Cost(
            backbone=backbone,
            method=self.name,
            parameters=sum(parameter.numel() for parameter in self.method.parameters()),
            steps=self.recipe.epochs * len(batches) if self.optimizer is not None else 0,
            step=self.step.cpu if self.optimizer is not None else 0.0,
            closed=closed,
            image=image,
            head=image - tower,
        )


def table(report: dict[str, Any]) -> str:
    """Format the report as Markdown."""
    costs = [Cost(**cost) for cost in report["costs"]]
    lines = [f"{report['classes']} classes, {report['shots']} images per class."]
    for backbone in dict.fromkeys(cost.backbone for cost in costs):
        lines += [
            "",
            f"| {backbone} | HM | parameters | steps | step, ms | training, s | image, ms | beside the tower, ms |",
            "|---|--:|--:|--:|--:|--:|--:|--:|",
        ]
        accuracy = harmonic_means(backbone)
        for c in costs:
            if c.backbone == backbone:
                step = f"{1000 * c.step:,.0f}" if c.steps else ""
                head = f"{1000 * c.head:.2f}" if parse_method(c.method).kind.frozen_images else ""
                lines.append(
                    f"| {c.method} | {accuracy.get(c.method, '')} | {c.parameters:,} | {c.steps or ''} | {step} | "
                    f"{c.training:,.1f} | {1000 * c.image:.1f} | {head} |"
                )
    return "\n".join(lines)


def harmonic_means(backbone: str) -> dict[str, str]:
    """Return the mean HM of each method on a backbone, as far as docs/ has results."""
    if backbone not in ACCURACY:
        return {}
    cells = averages(Results(ACCURACY[backbone] / "results.jsonl").rows)
    found = {method: figures[2][0] for method, figures in cells.items()}
    return {method: f"{cell.measured.mean:.2f}" for method, cell in found.items() if cell and cell.measured.count}


if __name__ == "__main__":
    main()
