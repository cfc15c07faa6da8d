"""`gopro head`: the first-order head of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gopro.cli.backbone_line import print_backbone
from gopro.cli.console import bar, out
from gopro.cli.parameters import (
    Classes,
    ClassesFile,
    ConfigFile,
    Device,
    ReaderProcesses,
    RunBackbone,
    RunName,
    class_names,
)

if TYPE_CHECKING:
    from gopro.inference.taylor_head import Agreement


def head_command(
    run: RunName,
    *,
    classes: Classes = None,
    classes_file: ClassesFile = None,
    error: float = 0.01,
    workers: ReaderProcesses = 2,
    device: Device = "auto",
    backbone: RunBackbone = None,
    config_file: ConfigFile = None,
) -> None:
    """Build the first-order head of a run, which classifies images without encoding text.

    Parameters
    ----------
    error:
        Largest error of a probability (0 to 1) to allow, for 99 of 100 images. The head gets as many terms as this
        needs.
    """
    from gopro.inference.taylor_head_file import build_head, head_path
    from gopro.methods.base import check_repeated
    from gopro.runs.load_run import load_run

    trained = load_run(run, device, backbone)
    print_backbone(trained.method.backbone.name)
    names = class_names(classes, classes_file) or trained.method.classnames
    check_repeated(names, trained.method.trained_names)
    with bar("classes", len(names)) as advance:
        head = build_head(trained, names, error=error, workers=workers, on_progress=advance)
    terms = "" if head.agreement is None else f", {len(head.expansion)} terms"
    out.print_line(f"First-order head of {run} for {len(names)} classes{terms}: {head_path(trained, names)}")
    if head.agreement is None:
        out.print_line("It equals the exact head: the text features of this method do not depend on the image.")
        return
    out.print_line(f"On {head.agreement.images} images not used to build it: {agreement_in_words(head.agreement)}.")
    if head.agreement.p99 > error:
        out.print_line(
            f"The error is larger than the {error:g} you asked for: {head.agreement.p99:.4f} for 99 of 100 images, "
            "and more terms would hardly reduce it. If that is too much, use the exact head."
        )


def agreement_in_words(agreement: Agreement) -> str:
    """Describe how far an approximate head agrees with the exact one."""
    return (
        f"same top class as the exact head for {agreement.top1:.2f} %, probabilities off by at most "
        f"{agreement.max:.4f}, {agreement.mean:.4f} on average"
    )
