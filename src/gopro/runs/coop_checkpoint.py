"""Read checkpoints of CoOp, CoCoOp (repository KaiyangZhou/CoOp) and the released GOPro (mainaksingha01/GOPro).

Dassl writes these as pickles, `model.pth.tar-50`. Only their tensors and numbers are unpickled; code is refused.
"""

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
from gopro.clip.text.tower import TextTower
from gopro.clip.weights.safe_load import safe_load, state_dict
from gopro.errors import InputError

CODE = {"coop": "CoOp", "cocoop": "CoCoOp", "gopro-release": "the released GOPro"}
"""Name of our method → name of the code whose checkpoints it can load."""

_FROZEN = {"image_encoder.": "visual.", "text_encoder.": "", "logit_scale": "logit_scale"}
"""Key prefixes of the frozen CLIP in checkpoints of the released GOPro → those of OpenAI."""

_RENAMED = {
    "ctx": "context",
    "style.linear.": "maps.style.",
    "content.linear.": "maps.content.",
    "rho.weight": "rho",
    "rho.bias": "rho_bias",
    "simproj.linear.": "project_beside.0.",
    "simproj.batchnorm.": "project_beside.1.",
}
"""Key prefixes of learned weights in their checkpoints → those of our methods."""

TOLERANCE = 0.01
"""Largest difference of a frozen weight from the backbone's, relative to the largest weight. Half precision causes
differences of up to 2^-11 = 0.0005."""


@dataclass(frozen=True)
class Checkpoint:
    """The content of a checkpoint.

    Attributes:
        path: its file.
        method: name of our method that can load it.
        learned: learned weights under our keys, in fp32.
        suffixes: token embeddings that follow the context in the prompt of each trained class: name, full stop, EOT,
            padding; None if they were removed from the checkpoint.
        frozen: weights of its CLIP under OpenAI's keys, if included.
        epoch: last finished epoch, if recorded.
    """

    path: Path
    method: str
    learned: dict[str, Tensor]
    suffixes: Float[Tensor, "classes rest width"] | None
    frozen: dict[str, Tensor]
    epoch: int | None

    @property
    def class_specific(self) -> bool:
        """Return whether each class has its own context."""
        return self.learned["context"].ndim == 3

    @property
    def tokens(self) -> int:
        """Number of context vectors."""
        return self.learned["context"].shape[-2]

    @property
    def width(self) -> int:
        """Size of a context vector."""
        return self.learned["context"].shape[-1]

    @property
    def classes(self) -> int | None:
        """Number of trained classes, if known."""
        if self.class_specific:
            return len(self.learned["context"])
        return None if self.suffixes is None else len(self.suffixes)

    def spec(self, position: str) -> str:
        """Return the method with its settings, for `gopro.methods.build_method`.

        Args:
            position: of the class name in CoOp's prompts, end, middle or front; checkpoints do not record it.
        """
        if self.method == "coop":
            csc = ",csc=true" if self.class_specific else ""
            place = "" if position == "end" else f",position={position}"
            return f"coop[tokens={self.tokens}{csc}{place}]"
        if self.tokens == 4:  # a photo of a
            return self.method
        return f'{self.method}[template="{" ".join("X" * self.tokens)} {{}}."]'


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint file, weights only: code in it is refused, never run.

    Raises:
        InputError: no such file, not a checkpoint, one that contains code, or one of another method.
    """
    if not path.is_file():
        reason = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path} {reason}: give a checkpoint, such as .../prompt_learner/model.pth.tar-50")
    content = safe_load(path, _stand_ins())
    if not isinstance(content, dict):
        raise InputError(f"{path} contains no state dict: give a model.pth.tar-N or model-best.pth.tar of Dassl")
    state = state_dict(path, content)
    epoch = content.get("epoch")
    frozen, trained = {}, {}
    for key, tensor in state.items():
        prefix = next((prefix for prefix in _FROZEN if key.startswith(prefix)), None)
        if prefix is None:
            trained[key.removeprefix("prompt_learner.")] = tensor
        else:
            frozen[_FROZEN[prefix] + key.removeprefix(prefix)] = tensor
    trained.pop("token_prefix", None)
    suffixes = trained.pop("token_suffix", None)
    learned = {rename_key(key): tensor.float() for key, tensor in trained.items()}
    method = _method(path, list(trained))
    if method == "gopro-release":
        # The released code creates a meta net, as CoCoOp's, but never uses it.
        learned = {key: tensor for key, tensor in learned.items() if not key.startswith("meta_net.")}
        learned["rho"], learned["rho_bias"] = learned["rho"].reshape(1, 1, -1), learned["rho_bias"].reshape(1, 1)
    context = learned["context"]
    if context.ndim not in ((2, 3) if method == "coop" else (2,)):
        raise InputError(f"{path}: ctx has the shape {list(context.shape)}, which is no context of {CODE[method]}")
    return Checkpoint(path, method, learned, suffixes, frozen, epoch if isinstance(epoch, int) else None)


def rename_key(key: str) -> str:
    """Translate a key of their prompt learners to the key of our method."""
    for prefix, renamed in _RENAMED.items():
        if key.startswith(prefix):
            return renamed + key.removeprefix(prefix)
    return key


def _method(path: Path, keys: Sequence[str]) -> str:
    """Tell the method by the keys of its learned weights."""
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
    unexpected, missing = sorted(set(keys) - released), sorted(released - set(keys))
    raise InputError(
        f"{path} is not a checkpoint of CoOp, CoCoOp or the released GOPro: "
        + (f"it has an unknown weight {unexpected[0]!r}" if unexpected else f"{missing[0]!r} is missing")
    )


def check_clip(checkpoint: Checkpoint, backbone: Backbone) -> None:
    """Check that a checkpoint was trained on this backbone, as far as its content tells.

    Raises:
        InputError: it was not; the message names the difference.
    """
    refusal, text = f"{checkpoint.path} was not trained on {backbone.name}", backbone.text
    if checkpoint.width != text.width:
        raise InputError(
            f"{refusal}: its context vectors have {checkpoint.width} numbers, those of the backbone {text.width}; give "
            "another --backbone"
        )
    if checkpoint.suffixes is not None:
        length = 1 + checkpoint.tokens + checkpoint.suffixes.shape[1]
        if length != text.context_length:
            raise InputError(f"{refusal}: its prompts have {length} tokens, the backbone's {text.context_length}")
    weights: Mapping[str, Tensor] = backbone.model.state_dict()
    for key, tensor in checkpoint.frozen.items():
        weight = weights.get(key)
        if weight is None or weight.shape != tensor.shape or not _close(tensor, weight):
            raise InputError(f"{refusal}: its weight {key} differs; give another --backbone")


def token_ids(checkpoint: Checkpoint, text: TextTower) -> list[list[int]] | None:
    """Recover the tokens of the trained class names, each with its full stop, from their embeddings.

    Returns:
        The tokens of each name; None if the checkpoint has no embeddings of names.

    Raises:
        InputError: the embeddings are not those of this text tower.
    """
    if checkpoint.suffixes is None:
        return None
    table = text.token_embedding.weight.detach().float().cpu()
    rows, places = checkpoint.suffixes.float().flatten(0, 1).unique(dim=0, return_inverse=True)
    nearest = torch.cat([torch.cdist(part, table).argmin(dim=1) for part in rows.split(256)])
    if not _close(rows, table[nearest]):
        raise InputError(
            f"{checkpoint.path}: the embeddings of its class names are not in the backbone's vocabulary; give the "
            "--backbone that it was trained on"
        )
    ids = nearest[places].view(checkpoint.suffixes.shape[:2]).tolist()
    if any(text.eot not in row for row in ids):
        raise InputError(f"{checkpoint.path}: its token_suffix has prompts without an EOT token")
    return [row[: row.index(text.eot)] for row in ids]


def decode_names(ids: Sequence[Sequence[int]], text: TextTower) -> list[str] | None:
    """Decode class names from their tokens, which include a full stop; None if the tokenizer cannot decode them.

    Capitals and spaces around punctuation are lost in tokenization, and so make no difference to predictions.
    """
    if not isinstance(text.tokenizer, open_clip.SimpleTokenizer):
        return None
    names = [text.tokenizer.decode(row).strip().removesuffix(".").strip() for row in ids]
    return names if all(same_tokens(name, row, text) for name, row in zip(names, ids, strict=True)) else None


def same_tokens(name: str, ids: Sequence[int], text: TextTower) -> bool:
    """Return whether a class name with a full stop has these tokens."""
    return text.tokens(f"{name}.") == list(ids)


def _close(tensor: Tensor, other: Tensor) -> bool:
    tensor, other = tensor.float().cpu(), other.detach().float().cpu()
    return (tensor - other).abs().max().item() <= TOLERANCE * other.abs().max().item()


def _stand_ins() -> list[Any]:
    """Return inert classes to unpickle instead of those in Dassl's checkpoints.

    The state of Dassl's warm-up scheduler contains the scheduler that follows it, and that one contains the optimizer.
    """

    class Inert:
        def __new__(cls, *args: Any) -> Any:
            return object.__new__(cls)

        def __setstate__(self, state: Any) -> None:
            """Ignore the state."""

    class PlainDict:
        def __new__(cls, *args: Any) -> Any:
            return {}

    def named(kind: type, module: str, name: str) -> type:
        return type(name, (kind,), {"__module__": module})

    schedulers = ("CosineAnnealingLR", "StepLR", "MultiStepLR")
    optimizers = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "rmsprop": "RMSprop"}
    return [
        *(named(Inert, "torch.optim.lr_scheduler", name) for name in schedulers),
        *(named(Inert, f"torch.optim.{module}", name) for module, name in optimizers.items()),
        named(Inert, "dassl.optim.radam", "RAdam"),
        named(PlainDict, "collections", "defaultdict"),
        named(Inert, "builtins", "dict"),
    ]
