"""What is written into a file: one module from images to probabilities, and its trace."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gopro.clip.packed_prompts import PackedPrompts
from gopro.errors import InputError
from gopro.inference.taylor_head import TaylorHead
from gopro.methods.base import Method


class Graph(nn.Module):
    """A method over its class names as a graph can hold it.

    Where the classes' side of the logits is fixed (a `TaylorHead`, which also stands for a text that takes nothing of a
    image) it is one matrix. Otherwise the packed text tower is in the graph, with the token embeddings of these class
    names alone.

    Args:
        method: over the class names.
        inside: whether images are given in 8 bits, and normalised inside.

    Raises:
        InputError: the text is an image's own, and is not encoded by a packed tower.
    """

    def __init__(self, method: Method, *, inside: bool):
        super().__init__()
        self.size = method.backbone.preprocess.size
        self.inside = inside
        self.classes: Tensor | None
        self.mean: Tensor
        self.std: Tensor
        if isinstance(method, TaylorHead):
            self.register_buffer("classes", method.backbone.logit_scale * method.class_vectors()[0].T)  # [dim, classes]
            self.method = method
        else:
            self.classes = None
            self.method = with_own_text(method)
        # The backbone is no part of a method's module; named here, so that its weights have names in the file.
        self.image_tower = method.backbone.model.visual
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(method.backbone.preprocess, name))[:, None, None])
        self.eval()

    def forward(self, images: Tensor) -> Float[Tensor, "batch classes"]:
        """Probabilities of the classes.

        Args:
            images: normalised, float32 [batch, 3, size, size]; with `inside` uint8 [batch, size, size, 3].
        """
        if self.inside:
            images = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        encoded = self.method.encode(images)
        if self.classes is None:
            logits = self.method.logits(encoded)
        else:
            logits = self.method.image_vectors(encoded) @ self.classes
        return logits.float().softmax(dim=-1)

    def given(self, images: Float[Tensor, "batch 3 size size"]) -> Tensor:
        """Images as the evaluation view has them, as `forward` takes them."""
        if not self.inside:
            return images
        return ((images * self.std + self.mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    @torch.no_grad()
    def trace(self) -> ExportedProgram:
        """The graph for any number of images."""
        example = self.given(torch.zeros(2, 3, self.size, self.size))
        self(example)  # what the text side computes once and keeps must be there: tracing would keep its own stand-ins
        batch = Dim("batch", min=1, max=2**31 - 1)  # without bounds torch 2.7 refuses it
        return torch.export.export(self, (example,), dynamic_shapes={"images": {0: batch}}, strict=False)


def tokens_of_own_text(method: Method) -> int | None:
    """How many tokens the prompts of all classes have that a graph would encode for each image; None where the text
    side of a method whose text is an image's own cannot be put into a graph."""
    prompts = getattr(method, "prompts", None)
    return prompts.tokens if isinstance(prompts, PackedPrompts) else None


def with_own_text(method: Method) -> Method:
    """The method with a text side that a graph can hold, see `PackedPrompts.on_their_own`.

    Raises:
        InputError: it has none.
    """
    prompts = getattr(method, "prompts", None)
    if not isinstance(prompts, PackedPrompts):
        raise InputError(
            f"the exact head of this run cannot be exported: {type(method).__name__} makes its text out of each "
            f"image, and not by the packed text tower (backbone {method.backbone.name}); use the first-order head"
        )
    other: Any = method.for_classes(method.classnames)  # Any: not every method has prompts
    other.prompts = prompts.on_their_own()
    return other
