"""`gopro import`: other people's checkpoints as runs."""

from __future__ import annotations

from pathlib import Path

from rich.markup import escape

from gopro.cli.console import ConfigFile, class_names, out
from gopro.data.dataset import ClassHalf
from gopro.runs.coop_checkpoint import CODE
from gopro.runs.import_checkpoint import BACKBONE, Position, import_checkpoint


def import_command(
    checkpoint: Path,
    *,
    output: Path,
    backbone: str = BACKBONE,
    data: str | None = None,
    root: Path | None = None,
    classes: ClassHalf = "all",
    classes_file: Path | None = None,
    template: str | None = None,
    position: Position = "end",
    shots: int | None = None,
    seed: int | None = None,
    config_file: ConfigFile = None,
) -> None:
    """Make a run out of a checkpoint of CoOp, CoCoOp or the released GOPro.

    It is read weights-only: one that holds code is refused.

    Parameters
    ----------
    checkpoint:
        A model.pth.tar-N or model-best.pth.tar.
    output:
        Folder that the run is written to.
    backbone:
        CLIP that it was trained on: ARCHITECTURE:TAG, ARCHITECTURE:FILE or openai:FILE.
    data:
        Data set that it was trained on; its class names are held against the checkpoint's.
    root:
        Directory that holds the benchmarks' folders in CoOp's layout.
    classes:
        Classes of --data that it was trained on: all, or the base or new half.
    classes_file:
        File of the names of its classes, one a line, in place of --data; read off the checkpoint if neither is given.
    template:
        Zero-shot prompt of its data, with {} for the class name; that of --data if not given.
    position:
        Where the class name stands, for CoOp, whose checkpoints do not say.
    shots:
        Images a class that it was trained on, if known.
    seed:
        Seed that it was trained with, if known.
    """
    run, found = import_checkpoint(
        checkpoint,
        output,
        backbone=backbone,
        classnames=class_names(None, classes_file),
        data=data,
        root=root,
        classes=classes,
        template=template,
        position=position,
        shots=shots,
        seed=seed,
    )
    names = run.method.classnames
    epoch = "" if found.epoch is None else f", epoch {found.epoch}"
    context = "one for each class" if found.class_specific else "one for all classes"
    some = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
    lines = [
        f"{checkpoint.name} is of {CODE[found.method]}{epoch}: a context of {found.tokens} vectors, "
        f"{found.width} wide, {context}.",
        f"{len(names)} classes: {some}",
        f"Written to {run.folder} as {run.config.method} on {run.config.backbone}"
        + ("." if found.names is None else "; its buffers of class names are left out."),
        f"Next: gopro predict {run.folder} IMAGES",
    ]
    for line in lines:
        out.print(escape(line), highlight=False, soft_wrap=True)
