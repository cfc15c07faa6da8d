"""`gopro import`: other people's checkpoints as runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from gopro.cli.console import out
from gopro.cli.parameters import ConfigFile, Root, class_names
from gopro.data.dataset import ClassHalf


def import_command(
    checkpoint: Path,
    *,
    output: Path,
    backbone: str = "ViT-B-16:openai",
    data: str | None = None,
    root: Root = None,
    classes: ClassHalf = "all",
    classes_file: Path | None = None,
    template: str | None = None,
    position: Literal["end", "middle", "front"] = "end",
    shots: int | None = None,
    seed: int | None = None,
    config_file: ConfigFile = None,
) -> None:
    """Turn a checkpoint of CoOp, CoCoOp or the released GOPro into a run.

    Only its tensors are read: a checkpoint that contains code is refused.

    Parameters
    ----------
    checkpoint:
        A model.pth.tar-N or model-best.pth.tar.
    output:
        Folder to write the run to.
    backbone:
        CLIP model that the checkpoint was trained with: ARCHITECTURE:TAG, ARCHITECTURE:FILE or openai:FILE.
    data:
        Data set that the checkpoint was trained on; its class names are compared with the checkpoint's.
    classes:
        Classes of --data that the checkpoint was trained on: all, or the first half (base) or the
        second half (new).
    classes_file:
        File of the class names, one per line or a JSON list, instead of --data. Default: the names in the checkpoint.
    template:
        Zero-shot prompt of the data set, with {} for the class name. Default: that of --data.
    position:
        Position of the class name in the prompt, which CoOp's checkpoints do not record.
    shots:
        Training images per class, if known.
    seed:
        Seed of the training, if known.
    """
    from gopro.runs.coop_checkpoint import CODE
    from gopro.runs.import_checkpoint import import_checkpoint

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
    context = "one context per class" if found.class_specific else "one context for all classes"
    out.print_line(
        f"{checkpoint.name} is from {CODE[found.method]}{epoch}: {found.tokens} vectors of {found.width}, {context}."
    )
    out.print_line(f"{len(names)} classes: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")
    left_out = "" if found.suffixes is None else ", without its buffers of class names"
    out.print_line(f"Written to {run.folder} as {run.config.method} on {run.config.backbone}{left_out}.")
    out.print_line(f"Next: gopro predict {run.folder} IMAGES")
