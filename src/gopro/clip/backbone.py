"""A frozen open_clip model: its image tower with per-layer token statistics, and its text tower opened up."""

from __future__ import annotations

import difflib
import hashlib
import json
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.model import build_model_from_openai_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from gopro.clip.quick_gelu import fuse_quick_gelu
from gopro.clip.safe_load import safe_load, state_dict
from gopro.clip.text_tower import TextTower
from gopro.data.transforms import Preprocess
from gopro.errors import InputError

EMBEDDED = "emoji"


class Encoded:
    """What the frozen image tower says of images.

    A plain class, as Fabric looks into dataclasses and would round what is in them to the precision of the towers.

    Attributes:
        embedding: [..., D], unit length.
        mean, std: [..., ΣW], mean and population standard deviation over a layer's tokens (class token included; a
            ResNet stage's tokens are its positions), layers one after the other, each W wide.
    """

    def __init__(
        self,
        embedding: Float[Tensor, "*batch embed"],
        mean: Float[Tensor, "*batch widths"],
        std: Float[Tensor, "*batch widths"],
    ):
        self.embedding, self.mean, self.std = embedding, mean, std

    def __getitem__(self, index: Any) -> Encoded:
        return Encoded(self.embedding[index], self.mean[index], self.std[index])

    def unflatten(self, *shape: int) -> Encoded:
        """The first dimension split into `shape`."""
        return Encoded(*(t.unflatten(0, shape) for t in (self.embedding, self.mean, self.std)))

    def to(self, device: torch.device | str) -> Encoded:
        return Encoded(self.embedding.to(device), self.mean.to(device), self.std.to(device))

    def rows(self) -> Float[Tensor, "*batch width"]:
        """Embedding, mean and std one after the other, `Backbone.row_width` wide."""
        return torch.cat([self.embedding, self.mean, self.std], dim=-1)

    @staticmethod
    def from_rows(rows: Float[Tensor, "*batch width"], embed_dim: int) -> Encoded:
        """What `rows` gave, taken apart."""
        width = (rows.shape[-1] - embed_dim) // 2
        return Encoded(*rows.split([embed_dim, width, width], dim=-1))

    @staticmethod
    def cat(parts: list[Encoded]) -> Encoded:
        """Parts joined along the first dimension."""
        return Encoded(*(torch.cat([getattr(p, f) for p in parts]) for f in ("embedding", "mean", "std")))


class Backbone:
    """A frozen CLIP.

    Attributes:
        name: what it was loaded by, e.g. `ViT-B-16:openai`.
        embed_dim: D, size of the shared space.
        layer_widths: width W of each layer whose statistics are taken.
        row_width: D + 2 ΣW, numbers that an `Encoded` holds of an image.
        preprocess: what turns an image into the tensor that the image tower takes.
        text: the text tower.
        logit_scale: exp of the model's learned scale.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, preprocess: Preprocess):
        self.name = name
        fuse_quick_gelu(model.visual)
        self.model = model.eval().requires_grad_(False)  # Any: of a Module, a type checker knows no attribute
        self.preprocess = preprocess
        self.text = TextTower(model, tokenizer)
        self.logit_scale = float(model.logit_scale.exp())
        self._layers = _statistics_layers(model.visual)
        self._fingerprint: str | None = None
        size = preprocess.size
        with self._tapped() as taps:
            embedding = self.model.visual(torch.zeros(1, 3, size, size, device=self.device))
        self.embed_dim: int = embedding.shape[-1]
        self.layer_widths: tuple[int, ...] = tuple(mean.shape[-1] for mean, _ in taps)
        self.row_width = self.embed_dim + 2 * sum(self.layer_widths)

    @property
    def device(self) -> torch.device:
        return self.text.device

    @torch.no_grad()
    def encode(self, images: Float[Tensor, "*batch 3 size size"]) -> Encoded:
        """Embedding and layer statistics of preprocessed images; any leading shape (batch; views and batch; none)."""
        batch = images.shape[:-3]
        with self._tapped() as taps:
            embedding = self.model.visual(images.reshape(-1, *images.shape[-3:]))
        means, stds = (torch.cat(t, dim=-1) for t in zip(*taps, strict=True))
        encoded = Encoded(F.normalize(embedding.float(), dim=-1), means, stds)
        return encoded.unflatten(*batch) if batch else encoded[0]

    def fingerprint(self) -> str:
        """A hash of the weights' names, shapes and values (as fp32), to tell backbones apart; 0.7 s a GB, once."""
        if self._fingerprint is None:
            self._fingerprint = self._hash()
        return self._fingerprint

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for name, tensor in self.model.state_dict().items():
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
        return digest.hexdigest()[:16]

    @contextmanager
    def _tapped(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Collects mean and std over tokens of each layer's output while the image tower runs."""
        taps: list[tuple[Tensor, Tensor]] = []
        thread = threading.get_ident()

        def tap(module: nn.Module, arguments: Any, output: Tensor) -> None:
            if threading.get_ident() != thread:  # a hook sees the calls of every thread, of a server's say
                return
            tokens = output.flatten(2).mT if output.ndim == 4 else output  # [B, tokens, W]
            taps.append(token_statistics(tokens.float()))

        handles = [layer.register_forward_hook(tap) for layer in self._layers]
        try:
            yield taps
        finally:
            for handle in handles:
                handle.remove()


def token_statistics(tokens: Float[Tensor, "batch tokens width"]) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation over tokens, each [batch, width].

    The 2.3e-8 under the root is the released code's (its AdaIN statistics).
    """
    mean = tokens.mean(dim=1)
    squares = (tokens - mean[:, None]).square().sum(dim=1)
    return mean, ((squares + 2.3e-8) / tokens.shape[1]).sqrt()


def _statistics_layers(visual: Any) -> list[nn.Module]:
    """The modules whose outputs are a layer's tokens: transformer blocks, or a ResNet's four stages."""
    if hasattr(visual, "transformer"):
        return list(visual.transformer.resblocks)
    if hasattr(visual, "layer4"):
        return [visual.layer1, visual.layer2, visual.layer3, visual.layer4]
    trunk = getattr(visual, "trunk", None)  # a timm model: SigLIP's ViT, ConvNeXt's stages
    for blocks in ("blocks", "stages"):
        if hasattr(trunk, blocks):
            return list(getattr(trunk, blocks))
    raise InputError(f"the image tower {type(visual).__name__} has no layers whose statistics are known how to take")


def load_backbone(name: str = EMBEDDED, device: torch.device | str = "cpu") -> Backbone:
    """A frozen backbone by name.

    Args:
        name: one of
            `emoji`: the small CLIP that comes with this package;
            `ARCHITECTURE:TAG`: an open_clip model and pretrained tag, e.g. `ViT-B-16:openai` (downloaded once);
            `ARCHITECTURE:FILE`: an open_clip architecture with weights from a local file (.safetensors, or a state
            dict that torch can load weights-only), images prepared as for the architecture's first tag. Weights
            that were trained with QuickGELU (OpenAI's, DFN's, MetaCLIP's) need `ARCHITECTURE-quickgelu`;
            `openai:FILE`: a state dict in OpenAI's layout, whose sizes are read off its tensors (QuickGELU);
            `ARCHITECTURE:random`: random weights, the same every time, for tests.

    Raises:
        InputError: no such architecture, tag or file; a file that is not such weights; a download that failed; a text
            tower that cannot take learned context.
    """
    if name == EMBEDDED:
        return _load_embedded(device)
    architecture, _, weights = name.partition(":")
    if architecture == "openai" and weights:
        return from_openai(_read_weights(Path(weights).expanduser()), name, device)
    if architecture not in open_clip.list_models():
        raise InputError(f"backbone {name!r}: no such model;{_close(architecture, open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not weights:
        raise InputError(
            f"backbone {name!r} names no weights: use one of "
            f"{', '.join(f'{architecture}:{tag}' for tag in (*tags, 'FILE', 'random'))}"
        )
    file = Path(weights).expanduser()
    if weights not in ("random", *tags) and not file.is_file():
        raise InputError(
            f"backbone {name!r}: {weights!r} is neither a file nor a pretrained tag of {architecture};"
            f"{_close(weights, tags)}"
        )
    config = open_clip.get_model_config(architecture) or {}
    if "hf_model_name" in config.get("text_cfg", {}):
        raise InputError(f"backbone {name!r}: its text tower, a Hugging Face encoder, cannot take learned context")
    tokenizer = _tokenizer(architecture, name)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # not torch.manual_seed, which would seed the accelerators too
        if weights in tags:
            model = _downloaded(architecture, weights, name)
        else:
            model = _created(architecture, tags)
            if weights != "random":
                _load(model, _read_weights(file), f"{file} does not hold weights of {architecture}")
    return Backbone(name, model.to(device), tokenizer, _preprocess(open_clip.get_model_preprocess_cfg(model)))


def from_openai(state: dict[str, Tensor], name: str = "openai", device: torch.device | str = "cpu") -> Backbone:
    """A backbone from a state dict in OpenAI's layout, all sizes read off the tensors.

    Raises:
        InputError: tensors are missing or do not fit together.
    """
    try:
        model = build_model_from_openai_state_dict(dict(state), cast_dtype=torch.float32).float()
        # open_clip goes through fp16 on the way; the tensors may hold more
        model.load_state_dict({key: state[key].float() for key in model.state_dict()})
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{name} does not hold a CLIP in OpenAI's layout: {_one_line(error)}") from error
    config = {
        "size": model.visual.image_size,
        "mean": open_clip.OPENAI_DATASET_MEAN,
        "std": open_clip.OPENAI_DATASET_STD,
    }
    return Backbone(name, model.to(device), open_clip.SimpleTokenizer(), _preprocess(config))


def _load_embedded(device: torch.device | str) -> Backbone:
    path = Path(str(files("gopro") / "assets" / "emoji-clip.safetensors"))
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    model = open_clip.CLIP(**json.loads(metadata["model_cfg"]))
    model.load_state_dict({key: tensor.float() for key, tensor in load_file(path).items()})
    preprocess = _preprocess(json.loads(metadata["preprocess_cfg"]))
    return Backbone(EMBEDDED, model.to(device), open_clip.SimpleTokenizer(), preprocess)


def _created(architecture: str, tags: list[str]) -> nn.Module:
    """The model with random weights; its images are prepared as its first pretrained tag wants them."""
    config = open_clip.get_pretrained_cfg(architecture, tags[0]) if tags else {}
    prepared = {key: config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in config}
    with _quiet():
        return open_clip.create_model(
            architecture, pretrained_image=False, pretrained_text=False, force_preprocess_cfg=prepared
        )


def _downloaded(architecture: str, tag: str, name: str) -> nn.Module:
    # open_clip only warns of weights that were trained with another activation than the architecture's
    quick_gelu = open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu", False)
    local = f"{architecture}-quickgelu" if f"{architecture}-quickgelu" in open_clip.list_models() else architecture
    try:
        with _quiet():
            return open_clip.create_model(architecture, pretrained=tag, force_quick_gelu=quick_gelu)
    except Exception as error:  # any of the hub's, the operating system's or open_clip's own
        raise InputError(
            f"backbone {name!r} could not be downloaded ({_one_line(error)}); "
            f"download its weights by other means and use {local if quick_gelu else architecture}:FILE"
        ) from error


def _tokenizer(architecture: str, name: str) -> Any:
    try:
        with _quiet():
            return open_clip.get_tokenizer(architecture)
    except ImportError as error:
        raise InputError(f"the tokenizer of backbone {name!r} needs a package: pip install transformers") from error
    except Exception as error:  # as above
        raise InputError(f"the tokenizer of backbone {name!r} could not be downloaded ({_one_line(error)})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps open_clip and the hub from logging what is meant (random weights) or becomes an InputError."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _load(model: nn.Module, state: dict[str, Tensor], complaint: str) -> None:
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(f"{complaint}: {_one_line(error)}") from error


def _read_weights(path: Path) -> dict[str, Tensor]:
    """A state dict from a file, never unpickling more than tensors."""
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        try:
            content = load_file(path)
        except (SafetensorError, OSError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"{path} cannot be read as plain tensors: it is damaged, or no safetensors file"
            ) from error
    else:
        content = safe_load(path)
    return {key.removeprefix("module."): tensor for key, tensor in state_dict(path, content).items()}


def _preprocess(config: dict[str, Any]) -> Preprocess:
    size = config["size"]
    return Preprocess(
        size=size if isinstance(size, int) else size[0],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config.get("interpolation", "bicubic"),
        resize_mode=config.get("resize_mode", "shortest"),
    )


def _close(wrong: str, known: list[str]) -> str:
    near = difflib.get_close_matches(wrong, known, n=3, cutoff=0.5)
    return f" did you mean {' or '.join(near)}?" if near else f" there are {', '.join(sorted(known)[:12])}, ..."


def _one_line(error: BaseException) -> str:
    line = " ".join(str(error).split())[:200] or type(error).__name__
    return f"there is no {line}" if isinstance(error, KeyError) else line
