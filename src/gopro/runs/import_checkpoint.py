"""Other people's checkpoints as runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from gopro.clip.backbone import Backbone, load_backbone
from gopro.data.dataset import ClassHalf
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.files import save_tensors, write_json
from gopro.methods.base import Method
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.coop_checkpoint import CODE, Checkpoint, check_clip, read_checkpoint, same_tokens, spelled, token_ids
from gopro.runs.run import CONFIG, LEARNED, UNKNOWN, Run, describe

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
    """Makes a run's folder out of a checkpoint of CoOp, CoCoOp or the released GOPro.

    The buffers of class names that such checkpoints hold stay out of the run. They tell what the classes are called, so
    that names need not be given; those that are given are held against them.

    Args:
        checkpoint: a `model.pth.tar-N` or `model-best.pth.tar`.
        output: the folder to make.
        backbone: the CLIP it was trained on.
        classnames: what its classes are called, in the order of their labels.
        data, root, classes: the data set it was trained on, as for `gopro.TrainConfig`, in the place of `classnames`.
        template: the zero-shot prompt of its data; that of `data` if not given.
        position: where CoOp put the class name, which its checkpoints do not say.
        shots, seed: what it was trained with, if known.

    Raises:
        InputError: no checkpoint of these, or not on this backbone; names that it was not trained on or that it does
            not tell; an output folder that is taken.
    """
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"{output} is not empty: choose another --output")
    if classnames is not None and data is not None:
        raise InputError("class names and data: give one of them, as data bring their names")
    found = read_checkpoint(checkpoint)
    if position != "end" and found.method != "coop":
        raise InputError(f"--position {position}: {CODE[found.method]} always has the class name at the end")
    if isinstance(backbone, str):
        backbone = load_backbone(backbone)
    check_clip(found, backbone)
    if data is not None:
        dataset = load_dataset(data, root).half(classes)
        classnames, template = dataset.classnames, template or dataset.template
    names = _names(found, backbone, classnames)
    config = TrainConfig(
        data=data or UNKNOWN,
        root=root,
        classes=classes,
        method=found.spec(position),
        backbone=backbone.name,
        shots=shots or 0,
        seed=seed or 0,
        epochs=found.epoch,
        output=output,
    )
    method = build_method(config.method, backbone, names, template or TEMPLATE)
    _fill(method, found)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{output} cannot be made: {error.strerror}") from error
    name = UNKNOWN if data is None else dataset.name
    origin = {"file": checkpoint.name, "code": CODE[found.method], "epoch": found.epoch}
    save_tensors(output / LEARNED, method.state_dict())
    write_json(output / CONFIG, {**describe(config, name, template or TEMPLATE, method), "imported": origin})
    return Run(output, config, name, template or TEMPLATE, method.eval()), found


def _names(found: Checkpoint, backbone: Backbone, given: Sequence[str] | None) -> list[str]:
    """The class names in the order of the labels: those given, or what the checkpoint tells.

    Raises:
        InputError: the checkpoint tells others, or tells none and none are given.
    """
    ids = token_ids(found, backbone.text)
    if given is None:
        names = None if ids is None else spelled(ids, backbone.text)
        if names is None:
            raise InputError(f"{found.path} does not tell what its classes are called: give --classes-file or --data")
        return names
    names = [name.replace("_", " ") for name in given]
    if found.classes is not None and found.classes != len(names):
        raise InputError(
            f"{found.path} was trained on {found.classes} classes, and {len(names)} names are given: give those it was "
            "trained on, in their order (--classes base, if it was trained on the base half of --data)"
        )
    for i, (name, row) in enumerate(zip(names, ids or (), strict=False)):
        if not same_tokens(name, row, backbone.text):
            told = spelled([row], backbone.text) or ["another"]
            raise InputError(f"{found.path}: its class {i + 1} is {told[0]!r}, and the name given is {name!r}")
    return names


def _fill(method: Method, found: Checkpoint) -> None:
    """Puts what was learned into the method."""
    wanted = method.state_dict()
    for key in sorted(wanted.keys() | found.learned.keys()):
        here, there = (list(t[key].shape) if key in t else "not there" for t in (wanted, found.learned))
        if here != there:
            raise InputError(
                f"{found.path} does not fit {method.backbone.name}: {key} is {there} in it, and {here} for this "
                "backbone; give the --backbone that it was trained on"
            )
    method.load_state_dict(found.learned)
