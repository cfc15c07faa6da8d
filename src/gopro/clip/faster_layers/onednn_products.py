"""Products with frozen weights by oneDNN, on processors where torch's own library for them, MKL, is slow.

MKL runs on AMD processors with the instructions of AVX2, even where they have AVX-512. oneDNN, which torch brings along
for convolutions, asks the processor alone what it can do. One core of an AMD EPYC (Zen 5) multiplies matrices of the
towers' sizes at 103 to 112 GFLOP/s with MKL, at 187 to 258 with oneDNN.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear


@cache
def is_onednn_faster() -> bool:
    """Return whether this is an AMD processor with AVX-512; without Linux's description of it, False."""
    if torch.backends.cpu.get_cpu_capability() != "AVX512" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):  # how torch.compile calls oneDNN, no public interface
        return False
    try:
        return "AuthenticAMD" in Path("/proc/cpuinfo").read_text()
    except OSError:
        return False


def frozen_linear(
    x: Float[Tensor, "*batch inputs"], weight: Float[Tensor, "outputs inputs"], bias: Float[Tensor, " outputs"] | None
) -> Float[Tensor, "*batch outputs"]:
    """Return x · weightᵀ + bias, as `F.linear` does up to rounding. Only `x` may need a gradient where oneDNN computes.

    Example:
        >>> frozen_linear(torch.ones(2, 3), torch.ones(1, 3), None)
        tensor([[3.],
                [3.]])
    """
    if (
        torch.compiler.is_exporting()
        or not is_onednn_faster()
        or torch.is_autocast_enabled("cpu")
        or weight.requires_grad
        or not x.device.type == weight.device.type == "cpu"
        or not x.dtype == weight.dtype == torch.float32
    ):
        return F.linear(x, weight, bias)
    return _OneDnnLinear.apply(x, weight, bias)


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor | None], output: Tensor) -> None:
        ctx.save_for_backward(inputs[1])
        ctx.save_for_forward(inputs[1])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *of_weights: Any) -> Tensor:
        (weight,) = ctx.saved_tensors
        return _OneDnnLinear.apply(tangent, weight, None)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (weight,) = ctx.saved_tensors
        return _OneDnnLinear.apply(gradient, weight.T, None), None, None


class FrozenLinear(nn.Linear):
    """A linear layer by `frozen_linear`."""

    def forward(self, input: Tensor) -> Tensor:
        return frozen_linear(input, self.weight, self.bias)


class FrozenSelfAttention(nn.MultiheadAttention):
    """Self-attention by `frozen_linear`, called as open_clip's blocks do; all other calls are left to torch."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Any:  # pyright: ignore
        mask = options.get("attn_mask")
        known = options.keys() == {"need_weights", "attn_mask"} and not options["need_weights"]
        additive = mask is None or (mask.ndim == 2 and mask.is_floating_point())
        on_cpu = query.device.type == "cpu" and not torch.compiler.is_exporting()
        if not (on_cpu and query is key is value and known and additive):
            return super().forward(query, key, value, **options)
        qkv = frozen_linear(query, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), None


def use_onednn_products(model: nn.Module) -> None:
    """Make the linear layers and self-attentions of a frozen model those of this module, in place.

    It does nothing where oneDNN is not faster. On one core of an AMD EPYC it takes the image tower of a ViT-B/16 from
    367 to 187 ms of CPU time per image, of which the attentions are 62 ms. In a step of GOPro on `photo` with 10
    classes, it takes the losses and their gradients from 84 to 67 ms.
    """
    if not is_onednn_faster():
        return
    for module in model.modules():
        if type(module) is nn.MultiheadAttention and _is_plain(module):
            module.__class__ = FrozenSelfAttention
        elif isinstance(module, nn.Linear) and type(module) in (nn.Linear, NonDynamicallyQuantizableLinear):
            module.__class__ = FrozenLinear


def _is_plain(attention: nn.MultiheadAttention) -> bool:
    """Return whether an attention is nothing but projections and softmax, over [batch, tokens, width]."""
    one_weight = attention.in_proj_weight is not None and attention.bias_k is None
    return one_weight and attention.batch_first and not attention.add_zero_attn and not attention.dropout
