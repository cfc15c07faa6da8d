"""The exported module: from images to probabilities, in one graph."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from gopro.clip.text.packed_prompts import PackedPrompts
from gopro.errors import InputError
from gopro.inference.taylor_head import TaylorHead
from gopro.methods.base import Method


class Graph(nn.Module):
    """A method over its class names in a form that `torch.export` can trace.

    The class side of a `TaylorHead`, which also represents text that does not depend on the image, is one matrix.
    Otherwise the graph contains the packed text tower, with the token embeddings of these class names only.

    Args:
        method: over the class names.
        uint8_input: take 8-bit images and normalise them in the graph.

    Raises:
        InputError: the text depends on the image and is not encoded by a packed text tower.
    """

    def __init__(self, method: Method, *, uint8_input: bool = False):
        super().__init__()
        self.size = method.backbone.preprocess.size
        self.uint8_input = uint8_input
        self.classes: Tensor | None
        self.mean: Tensor
        self.std: Tensor
        if isinstance(method, TaylorHead):
            self.register_buffer("classes", method.backbone.logit_scale * method.class_vectors()[0].T)  # [dim, classes]
            self.method = method
        else:
            self.classes = None
            self.method = with_compact_prompts(method)
        # A method does not register its backbone as a submodule. Registered here, its weights have names in the file.
        self.image_tower = method.backbone.model.visual
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(method.backbone.preprocess, name))[:, None, None])
        self.eval()

    def forward(self, images: Tensor) -> Float[Tensor, "batch classes"]:
        """Return the probabilities of the classes.

        Args:
            images: normalised, float32 [batch, 3, size, size]; with `uint8_input`, uint8 [batch, size, size, 3].
        """
        if self.uint8_input:
            images = (images.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        encoded = self.method.encode(images)
        if self.classes is None:
            logits = self.method.logits(encoded)
        else:
            logits = self.method.image_vectors(encoded) @ self.classes
        return self.method.probabilities(logits)

    def inputs(self, views: Float[Tensor, "batch 3 size size"]) -> Tensor:
        """Convert evaluation views to what `forward` takes."""
        if not self.uint8_input:
            return views
        return ((views * self.std + self.mean) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()

    @torch.no_grad()
    def trace(self) -> ExportedProgram:
        """Trace the graph for any number of images."""
        example = self.inputs(torch.zeros(2, 3, self.size, self.size))
        self(example)  # fills the caches of the text side before tracing, which would fill them with its fake tensors
        batch = Dim("batch", min=1, max=2**31 - 1)  # torch 2.7 refuses a dimension without bounds
        return torch.export.export(self, (example,), dynamic_shapes={"images": {0: batch}}, strict=False)


def prompt_tokens(method: Method) -> int | None:
    """Return the total length of the prompts of all classes, or None if they cannot be encoded in a graph."""
    prompts = getattr(method, "prompts", None)
    return prompts.tokens if isinstance(prompts, PackedPrompts) else None


def with_compact_prompts(method: Method) -> Method:
    """Return the method with prompts that a graph can hold, see `PackedPrompts.for_export`.

    Raises:
        InputError: its prompts are not packed.
    """
    prompts = getattr(method, "prompts", None)
    if not isinstance(prompts, PackedPrompts):
        raise InputError(
            f"the exact head of this run cannot be exported: {type(method).__name__} generates text for each image "
            f"without the packed text tower (backbone {method.backbone.name}); use the first-order head"
        )
    copy: Any = method.for_classes(method.classnames)  # Any: not every method has prompts
    copy.prompts = prompts.for_export()
    return copy
