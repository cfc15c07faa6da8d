"""A frozen open_clip model: image embeddings with per-layer statistics, a text tower, and how to load them."""

from __future__ import annotations

import difflib
import hashlib
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from gopro.clip.device import find_device
from gopro.clip.faster_layers.convolutions import pad_symmetrically, use_onednn
from gopro.clip.faster_layers.frozen_block import freeze_blocks
from gopro.clip.faster_layers.fuse_batch_norm import fuse_batch_norm, is_efficientnet
from gopro.clip.faster_layers.onednn_products import use_onednn_products
from gopro.clip.faster_layers.quick_gelu import FusedQuickGELU, fuse_quick_gelu
from gopro.clip.open_clip_internals import build_openai_clip, fit_text_layout, image_layers
from gopro.clip.similarity import unit_length
from gopro.clip.text.tokenizer import load_tokenizer
from gopro.clip.text.tower import TextTower
from gopro.clip.weights.embedded import DEFAULT, EMBEDDED
from gopro.clip.weights.load_embedded import load_embedded
from gopro.clip.weights.read_weights import read_weights, recorded_quick_gelu
from gopro.data.images.transforms import Preprocess, normalize
from gopro.errors import InputError, one_line
from gopro.network import hub_cache_alone_if_offline

PIXELS_AT_ONCE = 4 * 260**2
"""Pixels of the images that a convolutional image tower takes at once on a CPU."""


class Encoded:
    """The output of the frozen image tower for some images.

    This is not a dataclass because Fabric looks into dataclasses and would round the tensors in them to the towers'
    precision.

    Attributes:
        embedding: [..., D], unit length.
        mean, std: [..., ΣW], mean and population standard deviation over each layer's tokens, the layers concatenated,
            each W wide. The tokens of a ViT include the class token; those of a ResNet stage are its positions.
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
        """Split the first dimension into `shape`."""
        return Encoded(*(t.unflatten(0, shape) for t in (self.embedding, self.mean, self.std)))

    def to(self, device: torch.device | str) -> Encoded:
        return Encoded(self.embedding.to(device), self.mean.to(device), self.std.to(device))

    def rows(self) -> Float[Tensor, "*batch width"]:
        """Concatenate embedding, mean and std into rows `Backbone.row_width` wide."""
        return torch.cat([self.embedding, self.mean, self.std], dim=-1)

    @staticmethod
    def from_rows(rows: Float[Tensor, "*batch width"], embed_dim: int) -> Encoded:
        """Undo `rows`."""
        width = (rows.shape[-1] - embed_dim) // 2
        return Encoded(*rows.split([embed_dim, width, width], dim=-1))

    @staticmethod
    def cat(parts: list[Encoded]) -> Encoded:
        """Concatenate along the first dimension."""
        return Encoded(*(torch.cat([getattr(p, f) for p in parts]) for f in ("embedding", "mean", "std")))


class Backbone:
    """A frozen CLIP.

    Attributes:
        name: the name it was loaded by, for example `ViT-B-16:openai`.
        embed_dim: D, the width of the space that image and text features share.
        layer_widths: the width W of each layer whose statistics are taken.
        row_width: D + 2 ΣW, the numbers that an `Encoded` holds per image.
        preprocess: how an image becomes the tensor that the image tower takes.
        text: the text tower.
        logit_scale: exp of the model's learned temperature parameter; logits are cosines times this.
        to_features: maps the image tower's output [..., D] to unit features; see `gopro.clip.cone` for another one than
            `unit_length`.
        quick_gelu: whether the image tower computes with QuickGELU. Weights do not tell, nor does the fingerprint.
    """

    def __init__(self, name: str, model: Any, tokenizer: Any, preprocess: Preprocess):
        self.name = name
        fuse_quick_gelu(model.visual)
        self.quick_gelu = any(isinstance(module, FusedQuickGELU) for module in model.visual.modules())
        self.model = model.eval().requires_grad_(False)
        use_onednn_products(model)
        freeze_blocks(model.visual)
        self._fingerprint: str | None = None
        if is_efficientnet(model.visual):
            self.fingerprint()  # of the weights as they are published
            fuse_batch_norm(model.visual)
            pad_symmetrically(model.visual)
        self._memory_format = memory_format(model.visual)
        if self._memory_format == torch.channels_last:
            use_onednn(model.visual)
        model.visual.to(memory_format=self._memory_format)
        self.preprocess = preprocess
        self.text = TextTower(model, tokenizer)
        self.logit_scale = float(model.logit_scale.exp())
        self.to_features: Callable[[Tensor], Tensor] = unit_length
        self._layers = image_layers(model.visual)
        size = preprocess.size
        with self._layer_statistics() as statistics:
            embedding = self.model.visual(torch.zeros(1, 3, size, size, device=self.device))
        self.embed_dim: int = embedding.shape[-1]
        self.layer_widths: tuple[int, ...] = tuple(mean.shape[-1] for mean, _ in statistics)
        self.row_width = self.embed_dim + 2 * sum(self.layer_widths)

    @property
    def device(self) -> torch.device:
        return self.text.device

    @torch.no_grad()
    def encode(self, images: Shaped[Tensor, "*batch 3 size size"]) -> Encoded:
        """Encode images of any leading shape: batch, views and batch, or none.

        Args:
            images: preprocessed, or 8-bit views; see `normalized`.
        """
        batch = images.shape[:-3]
        images = images.reshape(-1, *images.shape[-3:])
        if torch.compiler.is_exporting():  # a graph cannot hold a loop whose length depends on the number of images
            encoded = self._encode(images)
        else:
            parts = [self._encode(part) for part in images.split(self._images_at_once(images))]
            encoded = Encoded.cat(parts) if len(parts) > 1 else parts[0]
        return encoded.unflatten(*batch) if batch else encoded[0]

    def normalized(self, images: Shaped[Tensor, "*batch 3 size size"]) -> Float[Tensor, "*batch 3 size size"]:
        """Normalise 8-bit views of `make_pixel_view` for this backbone; return other images as they are."""
        return normalize(images, self.preprocess) if images.dtype == torch.uint8 else images

    def _encode(self, images: Shaped[Tensor, "batch 3 size size"]) -> Encoded:
        images = self.normalized(images)  # a few at a time: in fp32 they are four times as large
        with self._layer_statistics() as statistics:
            embedding = self.model.visual(images.contiguous(memory_format=self._memory_format))
        means, stds = (torch.cat(t, dim=-1) for t in zip(*statistics, strict=True))
        return Encoded(self.to_features(embedding), means, stds)

    def _images_at_once(self, images: Shaped[Tensor, "batch 3 size size"]) -> int:
        """Return the number of images that the image tower takes at once: all of them, save on a CPU if it convolves.

        Layers of EfficientNet-Lite put out 6.5 MB for an image of 260 pixels. glibc takes tensors above 32 MB from the
        operating system and returns them each time, so all their pages are cleared anew; smaller ones also fit into the
        caches. In fours, one core encodes 67.5 images per second of CPU time, 64 at once 30.3 (Lite2 at 260 pixels),
        and 126 or 61 (Lite0 at 224 pixels); one by one, 38 or 51.
        """
        if images.device.type == "cpu" and self._memory_format == torch.channels_last:
            return max(1, PIXELS_AT_ONCE // (images.shape[-2] * images.shape[-1]))
        return max(1, len(images))

    def fingerprint(self) -> str:
        """Return a hash of the weights' names, shapes and fp32 values; computed once, in 0.7 s per GB.

        It does not depend on how this class lays the weights out in memory.
        """
        if self._fingerprint is None:
            digest = hashlib.sha256()
            for name, tensor in self.model.state_dict().items():
                digest.update(f"{name}{tuple(tensor.shape)}".encode())
                digest.update(tensor.detach().float().cpu().contiguous().numpy().data)
            self._fingerprint = digest.hexdigest()[:16]
        return self._fingerprint

    @contextmanager
    def _layer_statistics(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        """Collect the mean and standard deviation of every layer's tokens while the image tower runs."""
        statistics: list[tuple[Tensor, Tensor]] = []
        thread = threading.get_ident()

        def collect(module: nn.Module, arguments: Any, output: Tensor) -> None:
            if threading.get_ident() != thread:  # a hook runs for the calls of all threads, for example of a server
                return
            tokens = output.flatten(2).mT if output.ndim == 4 else output  # [B, tokens, W]
            statistics.append(token_statistics(tokens.float()))

        handles = [layer.register_forward_hook(collect) for layer in self._layers]
        try:
            yield statistics
        finally:
            for handle in handles:
                handle.remove()


def memory_format(visual: nn.Module) -> torch.memory_format:
    """Return the memory format that an image tower is fastest in: channels-last if it is convolutional.

    On one CPU core, channels-last raises the rate of EfficientNet-Lite2 from 15.2 to 27.5 images per second (fp32, 260
    pixels, batches of 16), and fused batch norms to 35.3; for Lite0 at 224 pixels the rates are 34.6, 54.0 and 81.1.
    OpenAI's ResNet-50 gains 1.2 times, a ConvNeXt nothing. A transformer has a single convolution, its patch embedding.
    """
    convolutions = sum(isinstance(module, nn.Conv2d) for module in visual.modules())
    return torch.channels_last if convolutions > 1 else torch.contiguous_format


def token_statistics(tokens: Float[Tensor, "batch tokens width"]) -> tuple[Tensor, Tensor]:
    """Return mean and population standard deviation over tokens, each [batch, width].

    The 2.3e-8 under the root comes from the released GOPro code (its AdaIN statistics).
    """
    mean = tokens.mean(dim=1)
    squares = (tokens - mean[:, None]).square_().sum(dim=1)
    return mean, ((squares + 2.3e-8) / tokens.shape[1]).sqrt()


def load_backbone(
    name: str = DEFAULT, device: torch.device | str = "cpu", *, weights: str | Path | None = None
) -> Backbone:
    """Load a frozen backbone.

    Args:
        name: one of
            `photo`, `emoji`: the small CLIPs that come with this package, for photographs and for emoji drawings;
            `ARCHITECTURE:TAG`: an open_clip model and pretrained tag, such as `ViT-B-16:openai` (downloaded once);
            `ARCHITECTURE:FILE`: an open_clip architecture with weights from a local file; see
            `gopro.clip.weights.read_weights` for the layouts. Images are prepared as for the architecture's first
            tag. Weights trained with QuickGELU (OpenAI's, DFN's, MetaCLIP's) need `ARCHITECTURE-quickgelu`. A tokenizer
            that open_clip does not contain, as SigLIP's, may lie beside the file;
            `openai:FILE`: a CLIP of OpenAI's kind, whose sizes are read off its tensors (QuickGELU);
            `ARCHITECTURE:random`: random weights, the same every time, for tests.
        device: `cpu`, `cuda`, or `auto` for a GPU if there is one.
        weights: a file to read the weights from, in place of where the name says they are. All else, such as the
            activation and how images are prepared, stays that of the name.

    Example:
        >>> load_backbone("emoji").name
        'emoji'

    Raises:
        InputError: there is no such architecture, tag or file; the file does not hold such weights; the download
            failed; the text tower cannot take learned context; there is no such device.
    """
    device = find_device(device)
    if name in EMBEDDED:
        if weights is not None:
            raise InputError(f"backbone {name!r} comes with its weights: {weights} is not needed")
        model, preprocess = load_embedded(name)
        return Backbone(name, model.to(device), open_clip.SimpleTokenizer(), _preprocess(preprocess))
    architecture, _, tag = name.partition(":")
    if architecture == "openai" and tag:
        return from_openai(read_weights(Path(weights or tag).expanduser()), name, device)
    if architecture not in open_clip.list_models():
        raise InputError(f"backbone {name!r}: no such model;{_suggestions(architecture, open_clip.list_models())}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if not tag:
        raise InputError(
            f"backbone {name!r} has no weights: use one of "
            f"{', '.join(f'{architecture}:{tag}' for tag in (*tags, 'FILE', 'random'))}"
        )
    file = None
    if weights is not None:
        file = Path(weights).expanduser()
    elif tag not in ("random", *tags):
        file = Path(tag).expanduser()
        if not file.is_file():
            raise InputError(
                f"backbone {name!r}: {tag!r} is neither a file nor a pretrained tag of {architecture};"
                f"{_suggestions(tag, tags)}"
            )
    config = open_clip.get_model_config(architecture) or {}
    if "hf_model_name" in config.get("text_cfg", {}):
        raise InputError(f"backbone {name!r}: its text tower, a Hugging Face encoder, cannot take learned context")
    if file is not None and weights is None:
        _check_activation(architecture, file)
    tokenizer = _tokenizer(architecture, name, None if file is None else file.absolute().parent)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # not torch.manual_seed, which would seed the accelerators too
        if file is None and tag in tags:
            model = _download(architecture, tag, name)
        else:
            model = _create(architecture, conventions(name))
            if file is not None:
                try:
                    model.load_state_dict(fit_text_layout(model, read_weights(file)))
                except RuntimeError as error:
                    raise InputError(f"{file} does not hold weights of {architecture}: {_one_line(error)}") from error
    return Backbone(name, model.to(device), tokenizer, _preprocess(open_clip.get_model_preprocess_cfg(model)))


def _check_activation(architecture: str, file: Path) -> None:
    """Raise InputError if the `config.json` beside a file says that its model has another activation."""
    recorded = recorded_quick_gelu(file)
    if recorded is None or recorded == conventions(f"{architecture}:{file}").quick_gelu:
        return
    other = f"{architecture}-quickgelu" if recorded else architecture.removesuffix("-quickgelu")
    advice = (
        f"use {other}:{file}" if other in open_clip.list_models() else f"{architecture} has no such form in open_clip"
    )
    raise InputError(
        f"{file}: its config.json says that the model has {'QuickGELU' if recorded else 'GELU'}, which {architecture} "
        f"lacks: {advice}"
    )


def from_openai(state: dict[str, Tensor], name: str = "openai", device: torch.device | str = "cpu") -> Backbone:
    """Build a backbone from a state dict in OpenAI's layout; all sizes are read off its tensors.

    Raises:
        InputError: tensors are missing or do not fit together.
    """
    try:
        model = build_openai_clip(state)
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{name} does not hold a CLIP in OpenAI's layout: {_one_line(error)}") from error
    config = {"size": model.visual.image_size, **conventions("openai:FILE").preprocess}
    return Backbone(name, model.to(device), open_clip.SimpleTokenizer(), _preprocess(config))


@dataclass(frozen=True)
class Conventions:
    """Properties that a backbone's name fixes besides its weights.

    Attributes:
        quick_gelu: whether the activation is QuickGELU, with which OpenAI's weights were trained.
        preprocess: mean, std, interpolation and resize_mode of images.
    """

    quick_gelu: bool
    preprocess: dict[str, Any]


def conventions(name: str) -> Conventions:
    """Return the properties that a backbone's name fixes besides its weights.

    With weights from a file, images are prepared as for the architecture's first pretrained tag.

    Args:
        name: as `load_backbone` takes it.
    """
    architecture, _, tag = name.partition(":")
    if architecture == "openai":
        clip = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
        return Conventions(True, {**clip, "interpolation": "bicubic", "resize_mode": "shortest"})
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    config = open_clip.get_pretrained_cfg(architecture, tag if tag in tags else tags[0]) if tags else {}
    quick_gelu = (open_clip.get_model_config(architecture) or {}).get("quick_gelu", False)
    return Conventions(
        quick_gelu=quick_gelu or (tag in tags and config.get("quick_gelu", False)),
        preprocess={key: config[key] for key in ("mean", "std", "interpolation", "resize_mode") if key in config},
    )


def _create(architecture: str, how: Conventions) -> nn.Module:
    """Create the model with random weights."""
    with _no_logging():
        return open_clip.create_model(
            architecture,
            pretrained_image=False,
            pretrained_text=False,
            force_quick_gelu=how.quick_gelu,
            force_preprocess_cfg=how.preprocess,
        )


def _download(architecture: str, tag: str, name: str) -> nn.Module:
    # open_clip only warns if the weights were trained with another activation than the architecture's
    config = open_clip.get_pretrained_cfg(architecture, tag)
    quick_gelu = config.get("quick_gelu", False)
    quick = f"{architecture}-quickgelu"
    local = quick if quick_gelu and quick in open_clip.list_models() else architecture
    with hub_cache_alone_if_offline() if config.get("hf_hub") else nullcontext() as offline:
        try:
            with _no_logging():
                return open_clip.create_model(architecture, pretrained=tag, force_quick_gelu=quick_gelu)
        except Exception as error:  # of the Hub's client, the operating system or open_clip
            raise InputError(
                f"backbone {name!r} could not be downloaded ({_reason(offline, error)}); "
                f"download its weights by other means and use {local}:FILE"
            ) from error


def _tokenizer(architecture: str, name: str, beside: Path | None) -> Any:
    try:
        with _no_logging():
            return load_tokenizer(architecture, beside)
    except InputError as error:
        raise InputError(f"backbone {name!r}: {error}") from error


def _reason(offline: str | None, error: Exception) -> str:
    """Say why a download failed: that there is no connection, if so."""
    return one_line(error) if offline is None else f"no connection to the Hugging Face Hub, {offline}"


@contextmanager
def _no_logging() -> Iterator[None]:
    """Silence open_clip and the Hub's client: their warnings are intended (random weights) or raised as InputError."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _preprocess(config: dict[str, Any]) -> Preprocess:
    size = config["size"]
    return Preprocess(
        size=size if isinstance(size, int) else size[0],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config.get("interpolation", "bicubic"),
        resize_mode=config.get("resize_mode", "shortest"),
    )


def _suggestions(wrong: str, known: list[str]) -> str:
    similar = difflib.get_close_matches(wrong, known, n=3, cutoff=0.5)
    if similar:
        return f" did you mean {' or '.join(similar)}?"
    return " give photo, emoji, or ARCHITECTURE:TAG such as ViT-B-16:openai"


def _one_line(error: BaseException) -> str:
    return f"{one_line(error)} is missing" if isinstance(error, KeyError) else one_line(error)
