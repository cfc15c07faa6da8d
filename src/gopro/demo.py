"""What `gopro demo` runs: base-to-new on the embedded benchmark, in a style that the embedded model has never seen."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from gopro.backbone import load_backbone
from gopro.classifier import Classifier
from gopro.config import BenchmarkConfig
from gopro.data import load_dataset
from gopro.protocols import run_folder
from gopro.report import SampleCard, base_to_new, write_page
from gopro.results import Row
from gopro.run import load_run

CONFIG = BenchmarkConfig(
    data=("emoji-activities:twemoji",),
    output=Path("runs/demo"),
    shots=8,
    epochs=5,
    batch=32,
    seeds=(1, 2, 3),
    workers=2,
)

INTRO = (
    "Base-to-new on emoji-activities, in a drawing style that the small embedded CLIP never saw in pretraining.\n"
    f"Each method learns from {CONFIG.shots} pictures of each base class and is tested on base classes and on new ones."
)

PICTURES = 6
"""Sample pictures in the report, half of them of base and half of new classes."""


def write_report(config: BenchmarkConfig, rows: Sequence[Row]) -> Path:
    """The demo's page: the table, sample pictures with every method's predictions, the machine, what to do next."""
    dataset = load_dataset(config.data[0])
    backbone = load_backbone(config.backbone)
    runs = {
        method: load_run(run_folder(config, config.data[0], method, config.seeds[0]), backbone=backbone).method
        for method in config.methods
    }
    cards = []
    for half in (dataset.half("base"), dataset.half("new")):
        classifiers = {name: Classifier(method.for_classes(half.classnames)) for name, method in runs.items()}
        count = PICTURES // 2
        for sample in half.test[:: -(-len(half.test) // count)]:
            picture = sample.picture.open()
            predictions = {
                name: [(p.name, p.probability) for p in classifier.predict(picture, 3)]
                for name, classifier in classifiers.items()
            }
            cards.append(SampleCard(picture, half.classnames[sample.label], predictions))
    return write_page(
        config.output / "report.html",
        title="GOPro demo: base to new on emoji-activities",
        intro=INTRO,
        rows=base_to_new(rows),
        samples=cards,
        facts=facts(config, rows),
        next_steps=next_steps(config),
    )


def facts(config: BenchmarkConfig, rows: Sequence[Row]) -> dict[str, str]:
    """The machine, the versions and the cost of a sweep."""
    minutes = sum(row["train_seconds"] for row in rows if row["classes"] == "base") / 60
    return {
        "Command": "`gopro demo`",
        "Backbone": config.backbone,
        "Training": f"{config.shots} shots, {config.epochs} epochs, batch {config.batch}, seeds {config.seeds}",
        "Training time": f"{minutes:.1f} minutes for all runs",
        "Machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "Versions": f"gopro {version('gopro')}, torch {torch.__version__}, Python {platform.python_version()}",
    }


def next_steps(config: BenchmarkConfig) -> list[str]:
    """What to do with one's own pictures."""
    run = run_folder(config, config.data[0], config.methods[-1], config.seeds[0])
    return [
        f"Ask the model that was just trained about any picture, with any names:\n"
        f'`gopro predict {run} PICTURE --classes "chess pawn,soccer ball"`',
        "Train on your own pictures, one folder a class (a few pictures each):\n"
        "`gopro train --data MY_PICTURES --backbone ViT-B-16:openai --shots 8 --output runs/mine`",
        "Compare methods on them:\n"
        "`gopro benchmark base-to-new --data MY_PICTURES --backbone ViT-B-16:openai --shots 8 --output runs/compare`",
    ]
