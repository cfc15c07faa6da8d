"""What `gopro demo` runs: base-to-new on the embedded benchmark, in a style that the embedded model has never seen."""

from __future__ import annotations

from pathlib import Path

from gopro.benchmark.protocols import base_to_new
from gopro.runs.config import BenchmarkConfig

CONFIG = BenchmarkConfig(data=("emoji-activities:twemoji",), output=Path("runs/demo"), shots=(4,), bank=5)

TITLE = "GOPro demo: base to new on emoji-activities"

INTRO = (
    "Base-to-new on emoji-activities, in a drawing style that the small embedded CLIP never saw in pretraining.\n"
    "Each method learns from 4 images of each base class and is tested on base classes and on new ones."
)


def next_steps(config: BenchmarkConfig) -> list[str]:
    """What to do with one's own images; commands stand between backticks."""
    run = config.output / "runs" / next(run.name for run in base_to_new(config) if run.train.method == "gopro")
    return [
        f"Ask the model that was just trained about any image, with any names:\n"
        f'`gopro predict {run} IMAGE --classes "chess pawn,soccer ball"`',
        "Train on your own images, one folder a class (a few images each):\n"
        "`gopro train --data MY_IMAGES --backbone ViT-B-16:openai --shots 8 --output runs/mine`",
        "Compare methods on them:\n"
        "`gopro benchmark base-to-new --data MY_IMAGES --backbones ViT-B-16:openai --shots 8 --output runs/compare`",
    ]
