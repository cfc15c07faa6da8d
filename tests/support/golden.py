"""Repeat the training steps recorded from the authors' own code (tests/golden), and measure the deviation.

tools/golden_rivals.py and tools/golden_maple.py record the files and document their contents.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from gopro.clip.backbone import Backbone
from gopro.methods.registry import build_method

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
EUROSAT = ["Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings"]
EUROSAT += ["Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake"]
CLASSNAMES = ["red fox", "owl", "grand_piano", "jack-o'-lantern", "very slow old train", "dog", "St. Bernard"]


@dataclass(frozen=True)
class ClipSizes:
    """The sizes of a random CLIP; an image has `grid` x `grid` patches of `patch` pixels per side."""

    image_width: int = 64
    text_width: int = 128
    embed_dim: int = 96
    layers: int = 2
    patch: int = 8
    grid: int = 2
    log_scale: float = 3.0


SMALL = ClipSizes()
VIT_B16 = ClipSizes(768, 512, 512, layers=12, patch=16, grid=14, log_scale=math.log(100))


def random_clip(sizes: ClipSizes = SMALL) -> dict[str, Tensor]:
    """Return a state dict of a random CLIP in OpenAI's layout; a ViT-B/16 takes 10 s and 600 MB.

    Its weights are the same on every machine: NumPy guarantees the stream of RandomState, unlike those of its newer
    generators or of torch.
    """
    draw = np.random.RandomState(0)
    state: dict[str, Tensor] = {}

    def normal(name: str, *shape: int, std: float) -> None:
        state[name] = torch.from_numpy((std * draw.standard_normal(shape)).astype(np.float32))

    def norm(name: str, width: int) -> None:
        normal(f"{name}.weight", width, std=0.1)
        state[f"{name}.weight"] += 1
        normal(f"{name}.bias", width, std=0.1)

    def blocks(prefix: str, width: int) -> None:
        for i in range(sizes.layers):
            block = f"{prefix}transformer.resblocks.{i}"
            linear = {"attn.in_proj_": (3, 1), "attn.out_proj.": (1, 1), "mlp.c_fc.": (4, 1), "mlp.c_proj.": (1, 4)}
            for name, (outputs, inputs) in linear.items():
                normal(f"{block}.{name}weight", outputs * width, inputs * width, std=(inputs * width) ** -0.5)
                normal(f"{block}.{name}bias", outputs * width, std=0.1)
            norm(f"{block}.ln_1", width)
            norm(f"{block}.ln_2", width)

    width = sizes.image_width
    normal("visual.class_embedding", width, std=0.1)
    normal("visual.positional_embedding", sizes.grid**2 + 1, width, std=0.1)
    normal("visual.conv1.weight", width, 3, sizes.patch, sizes.patch, std=0.1)
    norm("visual.ln_pre", width)
    blocks("visual.", width)
    norm("visual.ln_post", width)
    normal("visual.proj", width, sizes.embed_dim, std=0.1)
    width = sizes.text_width
    normal("token_embedding.weight", 49408, width, std=0.1)
    normal("positional_embedding", 77, width, std=0.05)
    blocks("", width)
    norm("ln_final", width)
    normal("text_projection", width, sizes.embed_dim, std=0.1)
    state["logit_scale"] = torch.tensor(sizes.log_scale)
    return state


def deeper_clip() -> dict[str, Tensor]:
    """Return `random_clip` with 5 image layers and 4 text layers, which is more layers than have learned tokens."""
    state = random_clip()
    for prefix, layers in (("visual.transformer.resblocks.", 5), ("transformer.resblocks.", 4)):
        first = {name: tensor for name, tensor in state.items() if name.startswith(prefix)}
        for layer in range(2, layers):
            source = f"{prefix}{layer % 2}."
            state |= {f"{prefix}{layer}.{n.removeprefix(source)}": t for n, t in first.items() if n.startswith(source)}
    return state


def drawn_images(count: int, size: int) -> Tensor:
    """Draw images [count, 3, size, size], the same on every machine."""
    draw = np.random.RandomState(4)
    return torch.from_numpy(draw.standard_normal((count, 3, size, size)).astype(np.float32))


def drawn_parameters(shapes: dict[str, torch.Size]) -> dict[str, Tensor]:
    """Draw initial values of learned tensors, the same on every machine, large enough to affect the logits."""
    draw = np.random.RandomState(2)
    values = {name: 0.1 * draw.standard_normal(tuple(shapes[name])) for name in sorted(shapes)}
    return {name: torch.from_numpy(value.astype(np.float32)) for name, value in values.items()}


def drawn_batches(size: int) -> list[tuple[Tensor, Tensor]]:
    """Draw three batches of images [size, 3, 16, 16] for `random_clip` and their labels, the same on every machine."""
    draw = np.random.RandomState(3)
    images = torch.from_numpy(draw.standard_normal((3, size, 3, 16, 16)).astype(np.float32))
    labels = torch.from_numpy(draw.randint(len(CLASSNAMES), size=(3, size)))
    return list(zip(images, labels, strict=True))


def read_golden(name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read the tensors and the metadata of tests/golden/NAME.safetensors."""
    with safe_open(GOLDEN / f"{name}.safetensors", framework="pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 (not a dict)


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names start with a prefix, without it and with `ctx` renamed to `context`."""
    named = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    return {"context" if key == "ctx" else key: value for key, value in named.items()}


def deviation(ours: Tensor, theirs: Tensor) -> float:
    """Return the largest absolute difference, divided by the largest absolute value of theirs."""
    assert ours.shape == theirs.shape
    return ((ours.detach() - theirs).abs().max() / theirs.abs().max()).item()


def golden_deviations(name: str, backbone: Backbone, spec: str | None = None) -> dict[str, float]:
    """Repeat a recording; return the deviation of logits, loss terms, gradients, losses and parameters.

    Args:
        spec: method to run instead of the recorded one.
    """
    golden, metadata = read_golden(name)
    method = build_method(spec or metadata["spec"], backbone, json.loads(metadata["classnames"]), "a photo of a {}.")
    init = under(golden, "init.")
    assert {key: p.shape for key, p in method.named_parameters()} == {key: t.shape for key, t in init.items()}
    method.load_state_dict(init, strict=False)  # not strict: PromptSRC's average starts at 0 and is not recorded
    optimizer = torch.optim.SGD(method.parameters(), lr=float(metadata["lr"]), momentum=0.9, weight_decay=5e-4)
    images, steps = method.encode(golden["images"]), len(golden["losses"])
    deviations = {"logits": deviation(method.logits(images), golden["logits"])}
    if "logits_new" in golden:
        others = method.for_classes([*method.classnames, "a new one"])
        deviations["logits_new"] = deviation(others.logits(images)[:, :-1], golden["logits_new"])
    losses = []
    for step in range(steps):
        terms = method.losses(images[None], golden["labels"])
        losses.append(torch.stack(list(terms.values())).sum())
        optimizer.zero_grad()
        losses[-1].backward()
        if step == 0:
            parameters = dict(method.named_parameters())
            for key, gradient in under(golden, "grad.").items():
                deviations[f"grad.{key}"] = deviation(parameters[key].grad, gradient)
            if "terms" in golden:
                here = torch.stack([terms["text"], terms["image"], terms["ce"] + terms["logits"]])
                deviations["terms"] = deviation(here, golden["terms"])
        optimizer.step()
        method.end_epoch(step, steps)
    deviations["losses"] = deviation(torch.stack(losses), golden["losses"])
    state = method.state_dict()
    return deviations | {f"after.{k}": deviation(state[k], t) for k, t in under(golden, "after.").items()}
