"""Turn a checkpoint of CoOp, CoCoOp or the released GOPro into a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gopro.clip.backbone import Backbone, load_backbone
from gopro.data.class_names import clean_name
from gopro.data.dataset import ClassHalf
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.methods.base import Method
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.coop_checkpoint import (
    CODE,
    Checkpoint,
    check_clip,
    decode_names,
    read_checkpoint,
    same_tokens,
    token_ids,
)
from gopro.runs.run import UNKNOWN, Run, write_config, write_learned

BACKBONE = "ViT-B-16:openai"
TEMPLATE = "a photo of a {}."

Position = Literal["end", "middle", "front"]


def import_checkpoint(
    checkpoint: Path,
    output: Path,
    *,
    backbone: str | Backbone = BACKBONE,
    classnames: Sequence[str] | None = None,
    data: str | None = None,
    root: Path | None = None,
    classes: ClassHalf = "all",
    template: str | None = None,
    position: Position = "end",
    shots: int | None = None,
    seed: int | None = None,
) -> tuple[Run, Checkpoint]:
    """Write a run's folder from a checkpoint of CoOp, CoCoOp or the released GOPro.

    Such checkpoints contain buffers with the embeddings of their class names. The names are decoded from these buffers,
    or given names are compared with them. The buffers do not become part of the run.

    Args:
        checkpoint: a `model.pth.tar-N` or `model-best.pth.tar`.
        output: the folder to create.
        backbone: the CLIP that it was trained on.
        classnames: the names of its classes, in the order of their labels.
        data, root, classes: the data set that it was trained on, as for `gopro.TrainConfig`; instead of `classnames`.
        template: the zero-shot prompt of its data set; by default that of `data`.
        position: of the class name in CoOp's prompts, which its checkpoints do not record.
        shots, seed: of its training, if known.

    Returns:
        The run and the checkpoint.

    Raises:
        InputError: not such a checkpoint, or one trained on another backbone; class names that are not the
            checkpoint's, or are missing; an output folder that is not empty.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} is not empty: choose another --output")
    if classnames is not None and data is not None:
        raise InputError("class names and data are both given: give only one, as a data set has its own names")
    loaded = read_checkpoint(checkpoint)
    if position != "end" and loaded.method != "coop":
        raise InputError(f"--position {position}: {CODE[loaded.method]} always has the class name at the end")
    if isinstance(backbone, str):
        backbone = load_backbone(backbone)
    check_clip(loaded, backbone)
    if data is not None:
        dataset = load_dataset(data, root).half(classes)
        classnames, template = dataset.classnames, template or dataset.template
    names = _names(loaded, backbone, classnames)
    config = TrainConfig(
        data=data or UNKNOWN,
        root=root,
        classes=classes,
        method=loaded.spec(position),
        backbone=backbone.name,
        shots=shots or 0,
        seed=seed or 0,
        epochs=loaded.epoch,
        output=output,
    )
    method = build_method(config.method, backbone, names, template or TEMPLATE)
    _load_learned(method, loaded)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output} cannot be created: {error.strerror}") from error
    name = UNKNOWN if data is None else dataset.name
    origin = {"file": checkpoint.name, "code": CODE[loaded.method], "epoch": loaded.epoch}
    run = Run(output, config, name, template or TEMPLATE, method.eval())
    write_learned(run)
    write_config(run, imported=origin)
    return run, loaded


def _names(checkpoint: Checkpoint, backbone: Backbone, classnames: Sequence[str] | None) -> list[str]:
    """Return the class names in the order of the labels: the given ones, or those decoded from the checkpoint.

    Raises:
        InputError: the given names are not the checkpoint's, or none are given and none can be decoded.
    """
    ids = token_ids(checkpoint, backbone.text)
    if classnames is None:
        names = None if ids is None else decode_names(ids, backbone.text)
        if names is None:
            raise InputError(f"{checkpoint.path} does not contain its class names: give --classes-file or --data")
        return names
    names = [clean_name(name) for name in classnames]
    if checkpoint.classes is not None and checkpoint.classes != len(names):
        raise InputError(
            f"{checkpoint.path} was trained on {checkpoint.classes} classes, but {len(names)} names are given: give "
            "those it was trained on, in their order (--classes base, if it was trained on the base half of --data)"
        )
    for i, (name, row) in enumerate(zip(names, ids or (), strict=False)):
        if not same_tokens(name, row, backbone.text):
            decoded = decode_names([row], backbone.text) or ["another"]
            raise InputError(f"{checkpoint.path}: its class {i + 1} is {decoded[0]!r}, but the given name is {name!r}")
    return names


def _load_learned(method: Method, checkpoint: Checkpoint) -> None:
    """Load the learned weights into the method.

    Raises:
        InputError: a weight is missing or has another shape.
    """
    expected = method.state_dict()
    for key in sorted(expected.keys() | checkpoint.learned.keys()):
        needed, actual = (
            list(state[key].shape) if key in state else "missing" for state in (expected, checkpoint.learned)
        )
        if needed != actual:
            raise InputError(
                f"{checkpoint.path} does not fit {method.backbone.name}: {key} is {actual} in the checkpoint and "
                f"{needed} for this backbone; give the --backbone that it was trained on"
            )
    method.load_state_dict(checkpoint.learned)
