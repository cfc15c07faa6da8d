"""The report of one run: figures of each class, confusions, calibration, training and the images that it got wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes

from gopro.benchmark.report.experiment import read_log
from gopro.benchmark.report.images import data_url
from gopro.benchmark.report.page import make_environment
from gopro.benchmark.report.palette import DARK, LIGHT, marks
from gopro.benchmark.report.plots.render import Panel, tooltip
from gopro.benchmark.report.plots.training_curves import run_plots
from gopro.errors import InputError
from gopro.files import write_atomically
from gopro.inference.calibration import CalibrationError
from gopro.inference.evaluate import Evaluation
from gopro.inference.wrong_images import WrongImage
from gopro.runs.run import COST, Run, read_cost
from gopro.training.resume_state import LOG

MAX_IMAGES = 60
"""Wrong images on the page, at most: the surest ones."""
MAX_OPEN_CLASSES = 30
"""Classes up to which their table is open, and up to which there is a confusion matrix."""
MAX_CONFUSIONS = 15


@dataclass(frozen=True)
class WrongCard:
    """A wrong image, with the image itself as a data: URL."""

    url: str
    answer: WrongImage


def write_run_page(
    path: Path, run: Run, evaluation: Evaluation, data: str, wrong: Sequence[WrongImage], files: Sequence[Path]
) -> Path:
    """Write a self-contained HTML page on an evaluation of a run, in the look of `gopro report`.

    Args:
        path: file to write.
        data: the data set and the part of it that the run was evaluated on.
        wrong: the images that were labelled wrong, in the order to show them in.
        files: other files that belong to the evaluation, to be named on the page.

    Raises:
        InputError: the file cannot be written, or the run's log or cost is damaged.
    """
    mark_of = marks([run.config.method])
    cards, notes = _cards(wrong)
    calibration = [("Calibration", evaluation.calibration)]
    if evaluation.temperature != 1:
        calibration = [
            (f"With the temperature {evaluation.temperature:.2f}", evaluation.calibration),
            ("Without it", evaluation.uncalibrated),
        ]
    log = read_log(run.folder / LOG)
    matrix = evaluation.confusion
    tested = [metrics for metrics in matrix.classes() if metrics.f1 is not None]
    html = (
        make_environment()
        .get_template("run.html")
        .render(
            title=f"{run.config.method} on {data}",
            facts={
                "% accuracy": f"{evaluation.accuracy:.2f}",
                "% mean F1": f"{matrix.macro_f1:.2f}",
                "test images": f"{evaluation.n:,}",
                "classes": f"{len(evaluation.classnames):,}",
            },
            run=run,
            evaluation=evaluation,
            classes=sorted(tested, key=lambda metrics: metrics.f1 or 0.0),
            few_classes=len(tested) <= MAX_OPEN_CLASSES,
            confusions=matrix.largest(MAX_CONFUSIONS),
            matrix=matrix.counts.tolist() if len(matrix.names) <= MAX_OPEN_CLASSES else [],
            names=matrix.names,
            calibration=calibration,
            reliability=[Panel(title, _reliability(error)) for title, error in calibration],
            training=run_plots(run.config, log, mark_of) if log else None,
            cards=cards,
            wrong=len(wrong),
            notes=notes,
            cost=read_cost(run.folder) if (run.folder / COST).is_file() else None,
            files=files,
            marks=mark_of,
            light=LIGHT,
            dark=DARK,
        )
    )
    write_atomically(path, html.encode())
    return path


def _cards(wrong: Sequence[WrongImage]) -> tuple[list[WrongCard], list[str]]:
    """Open the images, and note those that cannot be opened any more."""
    cards, notes = [], []
    for answer in wrong[:MAX_IMAGES]:
        try:
            cards.append(WrongCard(data_url(answer.image.open()), answer))
        except InputError as error:
            notes.append(f"An image is not shown: {error}")
    return cards, notes


def _reliability(error: CalibrationError) -> Callable[[Axes], None]:
    """Plot accuracy over confidence, one bar per bin, and the line on which both are equal."""

    def draw(axes: Axes) -> None:
        for bin in error.bins:
            low, width = 100 * bin.low, 100 * (bin.high - bin.low)
            [bar] = axes.bar(low, bin.accuracy, width=0.9 * width, align="edge", color=LIGHT["up-bar"])
            images = "1 image" if bin.images == 1 else f"{bin.images} images"
            text = f"{images} at {bin.confidence:.0f} % on average, {bin.accuracy:.0f} % of them right"
            bar.set_gid(tooltip(text))
        axes.plot([0, 100], [0, 100], color=LIGHT["soft"], linewidth=1)
        axes.set_xlim(0, 100)
        axes.set_ylim(0, 100)
        axes.set_xlabel("probability of the answer, %")
        axes.set_ylabel("right, %")

    return draw
