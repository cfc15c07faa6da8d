"""`gopro export`: a run as a file that does not need GOPro."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gopro.cli.console import bar, out
from gopro.cli.head import agreement_in_words
from gopro.cli.parameters import Classes, ClassesFile, ConfigFile, RunName, class_names


def export_command(
    run: RunName,
    *,
    classes: Classes = None,
    classes_file: ClassesFile = None,
    format: Literal["onnx", "torch"] = "onnx",
    head: Literal["auto", "exact", "first-order"] = "auto",
    preprocess: Literal["outside", "inside"] = "outside",
    output: Path | None = None,
    images: Path | None = None,
    config_file: ConfigFile = None,
) -> None:
    """Export a run with fixed class names to a file that does not need GOPro, and check it on real images.

    Parameters
    ----------
    format:
        An ONNX file, or one for torch.export.load.
    head:
        Exact, or first-order, which encodes no text at inference. Auto takes the exact one unless it would be slow.
    preprocess:
        With inside, the file takes 8-bit images and normalises them itself. Resizing is yours to do in both cases.
    output:
        File to write. Default: model.onnx or model.pt2 in the run's folder.
    images:
        Folder of images to compare the file with torch on. Default: up to 500 test images of the run's data set.
    """
    from gopro.inference.export.export import export_run
    from gopro.inference.export.formats import FORMATS
    from gopro.inference.taylor_head import Agreement

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
    about = done.about["head"]
    kind = "exact head" if about["kind"] == "exact" else f"first-order head with {about['terms']} terms"
    file_ms, torch_ms = done.milliseconds
    out.print_line(
        f"Exported {done.about['method']} for {len(done.about['classnames'])} classes to {done.path} "
        f"({kind}, {done.size / 2**20:.1f} MiB)"
    )
    if about["kind"] == "first-order":
        agreement = Agreement(**about["agreement"])
        out.print_line(f"First-order head on {agreement.images} images: {agreement_in_words(agreement)}.")
    out.print_line(
        f"File compared with torch on {done.agreement.images} images ({done.about['check']['of']}): same top class for "
        f"{done.agreement.top1:.2f} %, probabilities off by at most {done.agreement.max:.1e}."
    )
    out.print_line(f"{FORMATS[format].runtime} takes {file_ms:.2f} ms per image, torch {torch_ms:.2f} ms.")
