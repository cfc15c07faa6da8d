"""`gopro demo`: base-to-new on the embedded benchmark, in a style that the embedded CLIP never saw in pretraining."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from gopro.cli.benchmark import run_protocol
from gopro.cli.console import out
from gopro.runs.config import BenchmarkConfig

CONFIG = BenchmarkConfig(data=("emoji-activities:twemoji",), output=Path("runs/demo"), shots=(4,), bank=5)


def demo_command(*, output: Path = CONFIG.output) -> None:
    """Run base-to-new on the embedded benchmark and write a report.

    Parameters
    ----------
    output:
        Folder for the results, the runs and report.html.
    """
    from gopro.benchmark.report.page import write_report

    config = replace(CONFIG, output=output)
    out.print_line(
        "Base-to-new on emoji-activities, in a drawing style that the small embedded CLIP never saw in pretraining.\n"
        "Each method learns from 4 images of each base class and is tested on base classes and on new ones."
    )
    run_protocol("base-to-new", config, suggest_report=False)
    suggestions = next_steps(config)
    page = write_report(output, title="GOPro demo: base-to-new on emoji-activities", next_steps=suggestions)
    out.print_line(f"\nReport with images: {page}\n")
    for suggestion in suggestions:
        out.print_line(suggestion.replace("`", ""))


def next_steps(config: BenchmarkConfig) -> list[str]:
    """Return suggestions for what to run next, with commands between backticks."""
    from gopro.benchmark.protocols import base_to_new

    folder = config.output / "runs" / next(run.name for run in base_to_new(config) if run.train.method == "gopro")
    return [
        f"Ask the model you just trained about any image, with any class names:\n"
        f'`gopro predict {folder} IMAGE --classes "chess pawn,soccer ball"`',
        "Train on your own images, one folder per class with a few images each:\n"
        "`gopro train --data MY_IMAGES --backbone ViT-B-16:openai --shots 8 --output runs/mine`",
        "Compare methods on them:\n"
        "`gopro benchmark base-to-new --data MY_IMAGES --backbones ViT-B-16:openai --shots 8 --output runs/compare`",
    ]
