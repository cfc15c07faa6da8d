"""`gopro demo`: base-to-new on images in the package."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from gopro.cli.benchmark import run_protocol
from gopro.cli.console import out
from gopro.errors import InputError
from gopro.runs.config import BenchmarkConfig


@dataclass(frozen=True)
class Demo:
    """A comparison of methods that takes minutes.

    Attributes:
        about: the images, in a phrase.
        names: class names to ask the trained model about.
    """

    config: BenchmarkConfig
    about: str
    names: str


DEMOS = {
    "photos": Demo(
        BenchmarkConfig(
            data=("photos",),
            methods=("zeroshot", "coop", "tip-adapter-f", "gopro"),
            output=Path("runs/demo"),
            shots=(4,),
            bank=5,
        ),
        "photographs of Caltech101, with the small CLIP for photographs that comes with gopro",
        "red panda,sailing boat",
    ),
    "emoji-activities": Demo(
        BenchmarkConfig(data=("emoji-activities:twemoji",), output=Path("runs/demo"), shots=(4,), bank=5),
        "emoji-activities, in a drawing style that the small embedded CLIP never saw in pretraining",
        "chess pawn,soccer ball",
    ),
}


def demo_command(*, data: Literal["photos", "emoji-activities"] = "photos", output: Path | None = None) -> None:
    """Run base-to-new on images in the package and write a report.

    Parameters
    ----------
    data:
        Images to run it on: photographs or emoji.
    output:
        Folder for the results, the runs and report.html. Default: runs/demo.
    """
    from gopro.benchmark.report.page import write_report
    from gopro.benchmark.reuse import NotReusable

    demo = DEMOS[data]
    config = demo.config if output is None else replace(demo.config, output=output)
    refuse_other_results(config)
    out.print_line(
        f"Base-to-new on {demo.about}.\n"
        "Each method learns from 4 images of each base class and is tested on base classes and on new ones."
    )
    try:
        run_protocol("base-to-new", config, suggest_report=False)
    except NotReusable as error:
        raise InputError(f"{error}, or remove this one and start again: rm -r {config.output}") from error
    suggestions = next_steps(config, demo.names)
    page = write_report(config.output, title=f"GOPro demo: base-to-new on {data}", next_steps=suggestions)
    out.print_line(f"\nReport with images: {page}\n")
    for suggestion in suggestions:
        out.print_line(suggestion.replace("`", ""))


def refuse_other_results(config: BenchmarkConfig) -> None:
    """Raise InputError if the folder has results that this demo does not make, so that no report mixes the two."""
    from gopro.benchmark.protocols import base_to_new
    from gopro.benchmark.runner import RESULTS
    from gopro.runs.results import KEY, Results

    planned = {tuple(getattr(test.key, name) for name in KEY) for run in base_to_new(config) for test in run.tests}
    for row in Results(config.output / RESULTS).rows:
        if tuple(row[name] for name in KEY) not in planned:
            raise InputError(
                f"{config.output} has results of another demo ({row['method']} on {row['data']}): remove it "
                f"(rm -r {config.output}) or choose another folder (gopro demo --output {config.output}-2)"
            )


def next_steps(config: BenchmarkConfig, names: str) -> list[str]:
    """Return suggestions for what to run next, with commands between backticks."""
    from gopro.benchmark.protocols import base_to_new

    folder = config.output / "runs" / next(run.name for run in base_to_new(config) if run.train.method == "gopro")
    return [
        f"Ask the model you just trained about any image, with any class names:\n"
        f'`gopro predict {folder} IMAGE --classes "{names}"`',
        "Train on your own images, one folder per class with a few images each:\n"
        "`gopro train --data MY_IMAGES --shots 8 --output runs/mine`",
        "Compare methods on them:\n`gopro benchmark base-to-new --data MY_IMAGES --shots 8 --output runs/compare`",
    ]
