"""`gopro export`: a run as a file that needs no GOPro."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from rich.markup import escape

from gopro.cli.console import ConfigFile, bar, class_names, out
from gopro.cli.head import agreement_in_words
from gopro.inference.export.export import HeadWish, export_run
from gopro.inference.export.formats import FORMATS, FormatName
from gopro.inference.taylor_head import Agreement


def export_command(
    run: str,
    *,
    classes: str | None = None,
    classes_file: Path | None = None,
    format: FormatName = "onnx",
    head: HeadWish = "auto",
    preprocess: Literal["outside", "inside"] = "outside",
    output: Path | None = None,
    images: Path | None = None,
    config_file: ConfigFile = None,
) -> None:
    """Write a run with fixed class names to a file that needs no GOPro, and check it against torch on real images.

    Parameters
    ----------
    run:
        Folder of a trained run, or ORG/NAME of one on the Hugging Face Hub.
    classes:
        Names to choose from, separated by commas, any you like, or a .txt file of them; those of the training if not
        given.
    classes_file:
        File of such names, one a line.
    format:
        An ONNX file, or one for torch.export.load.
    head:
        Exact, or first-order, which encodes no text for an image. Auto takes the exact one where that costs little.
    preprocess:
        With inside, the graph takes 8-bit images and normalises them itself; they are resized outside in any case.
    output:
        The file; model.onnx or model.pt2 in the run's folder if not given.
    images:
        Folder of images to check the file on; up to 500 test images of the run's data if not given.
    """
    names = class_names(classes, classes_file)
    with bar("images compared", None) as advance:
        done = export_run(
            run,
            names,
            format=format,
            head=head,
            inside=preprocess == "inside",
            output=output,
            images=images,
            on_progress=advance,
        )
    said = done.about["head"]
    kind = "exact head" if said["kind"] == "exact" else f"first-order head of {said['terms']} terms"
    size = f"{done.size / 2**20:.1f} MiB"
    runtime, (of_file, of_torch) = FORMATS[format].runtime, done.milliseconds
    lines = [
        f"{done.about['method']} on {len(done.about['classnames'])} classes, {kind}, {size} -> {done.path}",
        f"Checked on {done.agreement.images} images ({done.about['check']['of']}): likeliest class as torch for "
        f"{done.agreement.top1:.2f} %, probabilities at most {done.agreement.max:.1e} apart.",
        f"{runtime} takes {of_file:.2f} ms an image, torch {of_torch:.2f} ms.",
    ]
    if said["kind"] == "first-order":
        agreement = Agreement(**said["agreement"])
        lines.insert(1, f"This head and the exact one, on {agreement.images} images: {agreement_in_words(agreement)}.")
    for line in lines:
        out.print(escape(line), highlight=False, soft_wrap=True)
