"""`gopro head`: the first-order head of a run."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from gopro.cli.console import ConfigFile, bar, class_names, out
from gopro.inference.taylor_head import Agreement
from gopro.inference.taylor_head_file import DEFAULT_ERROR, build_head, head_path
from gopro.runs.run import load_run


def head_command(
    run: str,
    *,
    classes: str | None = None,
    classes_file: Path | None = None,
    error: float = DEFAULT_ERROR,
    workers: int = 2,
    config_file: ConfigFile = None,
) -> None:
    """Build the first-order head of a run, which classifies images without encoding text.

    Parameters
    ----------
    run:
        Folder of a trained run, or ORG/NAME on the Hugging Face Hub.
    classes:
        Names to choose from, separated by commas, any you like; those of the training if not given.
    classes_file:
        File of such names, one a line.
    error:
        Largest difference of a probability from the exact one that 99 of 100 images may have.
    workers:
        Processes that read images.
    """
    trained = load_run(run)
    names = class_names(classes, classes_file) or trained.method.classnames
    with bar("classes", len(names)) as advance:
        head = build_head(trained, names, error=error, workers=workers, on_progress=advance)
    made = f"{len(names)} classes, {len(head.expansion)} terms -> {escape(str(head_path(trained, names)))}"
    said = "exact: the text takes nothing of an image"
    if head.agreement is not None:
        said = f"on {head.agreement.images} images that it was not built from, {agreement_in_words(head.agreement)}"
    out.print(f"First-order head of {escape(run)}, {made}", highlight=False, soft_wrap=True)
    out.print(said[0].upper() + said[1:] + ".", highlight=False, soft_wrap=True)
    if head.agreement is not None and head.agreement.p99 > error:
        out.print(
            f"That is more than the error asked for, {error:g}: 99 of 100 images keep to {head.agreement.p99:.4f}, "
            "and more terms would hardly come nearer. Where it matters, use the exact head.",
            highlight=False,
            soft_wrap=True,
        )


def agreement_in_words(agreement: Agreement) -> str:
    """For a line of output."""
    return (
        f"likeliest class as exact for {agreement.top1:.2f} %, probabilities at most {agreement.max:.4f} apart, "
        f"{agreement.mean:.4f} in the mean over images"
    )
