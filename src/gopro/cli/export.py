"""`gopro export`: a run as a file that does not need GOPro."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gopro.cli.backbone_line import print_backbone
from gopro.cli.console import bar, out
from gopro.cli.head import agreement_in_words
from gopro.cli.parameters import Classes, ClassesFile, ConfigFile, RunBackbone, RunName, class_names


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
    backbone: RunBackbone = None,
    config_file: ConfigFile = None,
) -> None:
    """Export a run to a file that does not need GOPro, and check it on real images.

    The class names cannot be changed after the export.

    Parameters
    ----------
    format:
        File format: onnx, or torch for a file that torch.export.load reads.
    head:
        Head to export: exact, or first-order, which encodes no text at inference. With auto, the exact one unless it
        would be slow.
    preprocess:
        With inside, the exported model takes 8-bit images and normalises them itself. In both cases you resize them
        first.
    output:
        File to write. Default: model.onnx or model.pt2 in the run's folder.
    images:
        Folder of images on which the file is compared with torch. Default: up to 500 test images of the run's data
        set.
    """
    from gopro.inference.export import ExportSettings, export_run
    from gopro.inference.export.formats import FORMATS
    from gopro.inference.taylor_head import Agreement

    names = class_names(classes, classes_file)
    settings = ExportSettings(format=format, head=head, preprocess=preprocess, output=output, images=images)
    with bar("images compared", None) as advance:
        model = export_run(run, names, settings, advance, backbone=backbone)
    print_backbone(model.metadata["backbone"]["name"])
    metadata, comparison = model.metadata, model.comparison
    exported_head = metadata["head"]
    exact = exported_head["kind"] == "exact"
    kind = "exact head" if exact else f"first-order head with {exported_head['terms']} terms"
    out.print_line(
        f"Exported {metadata['method']} for {len(metadata['classnames'])} classes to {model.path} "
        f"({kind}, {model.size / 2**20:.1f} MiB)"
    )
    if not exact:
        agreement = Agreement(**exported_head["agreement"])
        out.print_line(f"First-order head on {agreement.images} images: {agreement_in_words(agreement)}.")
    agreement = comparison.agreement
    out.print_line(
        f"File compared with torch on {agreement.images} images ({metadata['check']['of']}): same top class for "
        f"{agreement.top1:.2f} %, probabilities off by at most {agreement.max:.1e}."
    )
    out.print_line(
        f"{FORMATS[format].runtime} takes {comparison.file_ms:.2f} ms per image, torch {comparison.torch_ms:.2f} ms."
    )
