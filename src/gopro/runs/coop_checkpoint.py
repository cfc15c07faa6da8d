"""Checkpoints of CoOp, CoCoOp (KaiyangZhou/CoOp) and the released GOPro (mainaksingha01/GOPro), as Dassl writes them:
`model.pth.tar-50`, a pickle of which nothing but tensors and numbers is ever made."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.clip.safe_load import safe_load, state_dict
from gopro.clip.text_tower import TextTower
from gopro.errors import InputError

CODE = {"coop": "CoOp", "cocoop": "CoCoOp", "gopro-release": "the released GOPro"}
"""Whose code writes checkpoints that our methods of these names take."""

_FROZEN = {"image_encoder.": "visual.", "text_encoder.": "", "logit_scale": "logit_scale"}
"""What the released GOPro keeps of its frozen CLIP beside what it learns, and how OpenAI calls it."""

_RENAMED = {
    "ctx": "context",
    "style.linear.": "maps.style.",
    "content.linear.": "maps.content.",
    "rho.weight": "rho",
    "rho.bias": "rho_bias",
    "simproj.linear.": "project_beside.0.",
    "simproj.batchnorm.": "project_beside.1.",
}
"""What is learned, by the beginnings of their names and ours."""

CLOSE = 0.01
"""Largest difference, relative to the largest number, that half precision may make of a frozen weight."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        path: its file.
        method: name of our method that takes it.
        learned: what was learned, by our names, in fp32.
        names: embeddings of what follows the context in the prompt of each class it was trained on: name, full stop,
            EOT, padding; None where the checkpoint was stripped of them.
        frozen: weights of the CLIP it was trained on, by OpenAI's names, where it holds them.
        epoch: after which it was written, if it says so.
    """

    path: Path
    method: str
    learned: dict[str, Tensor]
    names: Float[Tensor, "classes rest width"] | None
    frozen: dict[str, Tensor]
    epoch: int | None

    @property
    def class_specific(self) -> bool:
        """Whether each class has a context of its own."""
        return self.learned["context"].ndim == 3

    @property
    def tokens(self) -> int:
        """Length of the context."""
        return self.learned["context"].shape[-2]

    @property
    def width(self) -> int:
        """d, size of a context vector."""
        return self.learned["context"].shape[-1]

    @property
    def classes(self) -> int | None:
        """How many classes it was trained on, if it tells."""
        if self.class_specific:
            return len(self.learned["context"])
        return None if self.names is None else len(self.names)

    def spec(self, position: str) -> str:
        """The method with its settings, for `gopro.methods.build_method`.

        Args:
            position: where the class name stands, which CoOp's checkpoints do not say: end, middle or front.
        """
        if self.method == "coop":
            csc = ",csc=true" if self.class_specific else ""
            place = "" if position == "end" else f",position={position}"
            return f"coop[tokens={self.tokens}{csc}{place}]"
        if self.tokens == 4:  # a photo of a
            return self.method
        return f'{self.method}[template="{" ".join("X" * self.tokens)} {{}}."]'


def read_checkpoint(path: Path) -> Checkpoint:
    """What is in a checkpoint file, which is read weights-only: code in it is refused, never run.

    Raises:
        InputError: no such file, no checkpoint, one that holds code, or one of another method.
    """
    if not path.is_file():
        what = "a folder" if path.is_dir() else "no file"
        raise InputError(f"{path} is {what}: give a checkpoint, such as .../prompt_learner/model.pth.tar-50")
    content = safe_load(path, _stand_ins())
    if not isinstance(content, dict):
        raise InputError(f"{path} holds no state dict: give a model.pth.tar-N or model-best.pth.tar of Dassl")
    state = state_dict(path, content)
    epoch = content.get("epoch")
    frozen, own = {}, {}
    for key, tensor in state.items():
        beginning = next((b for b in _FROZEN if key.startswith(b)), None)
        if beginning is None:
            own[key.removeprefix("prompt_learner.")] = tensor
        else:
            frozen[_FROZEN[beginning] + key.removeprefix(beginning)] = tensor
    own.pop("token_prefix", None)
    names = own.pop("token_suffix", None)
    learned = {ours(key): tensor.float() for key, tensor in own.items()}
    method = _method(path, list(own))
    if method == "gopro-release":
        learned = {key: tensor for key, tensor in learned.items() if not key.startswith("meta_net.")}  # it is dead
        learned["rho"], learned["rho_bias"] = learned["rho"].reshape(1, 1, -1), learned["rho_bias"].reshape(1, 1)
    context = learned["context"]
    if context.ndim not in ((2, 3) if method == "coop" else (2,)):
        raise InputError(f"{path}: ctx has the shape {list(context.shape)}, which is no context of {CODE[method]}")
    return Checkpoint(path, method, learned, names, frozen, epoch if isinstance(epoch, int) else None)


def ours(key: str) -> str:
    """Our name of what CoOp, CoCoOp and the released GOPro learn, by the name in their prompt learners."""
    for beginning, renamed in _RENAMED.items():
        if key.startswith(beginning):
            return renamed + key.removeprefix(beginning)
    return key


def _method(path: Path, keys: Sequence[str]) -> str:
    """Which method learns what goes by these names."""
    meta = {f"meta_net.linear{i}.{part}" for i in (1, 2) for part in ("weight", "bias")}
    if set(keys) == {"ctx"}:
        return "coop"
    if set(keys) == {"ctx", *meta}:
        return "cocoop"
    layers = sum(re.fullmatch(r"style\.linear\.\d+\.weight", key) is not None for key in keys)
    maps = {f"{m}.linear.{i}.{p}" for m in ("style", "content") for i in range(layers) for p in ("weight", "bias")}
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    beside = {"simproj.linear.weight", "simproj.linear.bias", *(f"simproj.batchnorm.{part}" for part in norm)}
    released = {"ctx", "rho.weight", "rho.bias", *meta, *maps, *beside}
    if set(keys) == released:
        return "gopro-release"
    strange = sorted(set(keys) - released) or sorted(released - set(keys))
    raise InputError(
        f"{path} is no checkpoint of CoOp, CoCoOp or the released GOPro: "
        f"{strange[0]!r} {'is none of theirs' if strange[0] in keys else 'is missing'}"
    )


def check_clip(checkpoint: Checkpoint, backbone: Backbone) -> None:
    """That a checkpoint was trained on this backbone, as far as it tells.

    Raises:
        InputError: it was not; one line says by what that is seen.
    """
    where, text = f"{checkpoint.path} was not trained on {backbone.name}", backbone.text
    if checkpoint.width != text.width:
        raise InputError(
            f"{where}: its context is {checkpoint.width} wide, the backbone takes {text.width}; give --backbone"
        )
    if checkpoint.names is not None and 1 + checkpoint.tokens + checkpoint.names.shape[1] != text.context_length:
        length = 1 + checkpoint.tokens + checkpoint.names.shape[1]
        raise InputError(f"{where}: its prompts have {length} tokens, the backbone's {text.context_length}")
    own: Mapping[str, Tensor] = backbone.model.state_dict()
    for key, tensor in checkpoint.frozen.items():
        there = own.get(key)
        if there is None or there.shape != tensor.shape or not _close(tensor, there):
            raise InputError(f"{where}: its {key} is another; give --backbone")


def token_ids(checkpoint: Checkpoint, text: TextTower) -> list[list[int]] | None:
    """The tokens of the class names that a checkpoint was trained on, each with the full stop behind it; None where it
    does not hold their embeddings.

    Raises:
        InputError: they are no embeddings of this text tower.
    """
    if checkpoint.names is None:
        return None
    table = text.token_embedding.weight.detach().float().cpu()
    rows, places = checkpoint.names.float().flatten(0, 1).unique(dim=0, return_inverse=True)
    nearest = torch.cat([torch.cdist(part, table).argmin(dim=1) for part in rows.split(256)])
    if not _close(rows, table[nearest]):
        raise InputError(
            f"{checkpoint.path}: the embeddings of its class names are none of the backbone's; give the --backbone "
            "that it was trained on"
        )
    ids = nearest[places].view(checkpoint.names.shape[:2]).tolist()
    if any(text.eot not in row for row in ids):
        raise InputError(f"{checkpoint.path}: its token_suffix holds prompts without an end")
    return [row[: row.index(text.eot)] for row in ids]


def spelled(ids: Sequence[Sequence[int]], text: TextTower) -> list[str] | None:
    """Class names that have these tokens, full stop included; None where that cannot be told. Capitals and the spaces
    around punctuation are lost to the tokenizer, which makes no difference to a prediction."""
    if not isinstance(text.tokenizer, open_clip.SimpleTokenizer):
        return None
    names = [text.tokenizer.decode(row).strip().removesuffix(".").strip() for row in ids]
    return names if all(same_tokens(name, row, text) for name, row in zip(names, ids, strict=True)) else None


def same_tokens(name: str, ids: Sequence[int], text: TextTower) -> bool:
    """Whether a class name is the one that these tokens write, full stop included."""
    return text.tokens(f"{name}.") == list(ids)


def _close(tensor: Tensor, other: Tensor) -> bool:
    tensor, other = tensor.float().cpu(), other.detach().float().cpu()
    return (tensor - other).abs().max().item() <= CLOSE * other.abs().max().item()


def _stand_ins() -> list[Any]:
    """What takes the places of the objects that Dassl lets into a checkpoint, so that none of them is made: its warm-up
    keeps the scheduler that follows it among its numbers, and that one its optimizer."""

    class Passed:
        def __new__(cls, *args: Any) -> Any:
            return object.__new__(cls)

        def __setstate__(self, state: Any) -> None:
            """Which is passed over."""

    class Plain:
        def __new__(cls, *args: Any) -> Any:
            return {}

    def named(kind: type, module: str, name: str) -> type:
        return type(name, (kind,), {"__module__": module})

    schedulers = ("CosineAnnealingLR", "StepLR", "MultiStepLR")
    optimizers = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
    return [
        *(named(Passed, "torch.optim.lr_scheduler", name) for name in schedulers),
        *(named(Passed, f"torch.optim.{module}", name) for module, name in optimizers.items()),
        named(Passed, "dassl.optim.radam", "RAdam"),
        named(Plain, "collections", "defaultdict"),
        named(Passed, "builtins", "dict"),
    ]
