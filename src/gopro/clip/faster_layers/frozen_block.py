"""The parts of a frozen residual block of open_clip, with fewer passes over memory than its own modules take.

QuickGELU, x · sigmoid(1.702 x), is silu(1.702 x) / 1.702. Both factors are left to the products around the SiLU, so
that nothing but the SiLU passes over the hidden layer of an MLP, which is 4 · width wide.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from gopro.clip.faster_layers.onednn_products import frozen_linear, is_onednn_faster
from gopro.clip.faster_layers.quick_gelu import SLOPE, FusedQuickGELU
from gopro.clip.open_clip_internals import ResidualAttentionBlock


class FrozenBlock(ResidualAttentionBlock):
    """A residual block that computes self-attention without mask by this module; all else is left to open_clip."""

    def forward(self, q_x: Tensor, *others: Tensor | None, attn_mask: Tensor | None = None) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        if others or attn_mask is not None or not _is_plain(q_x):
            return super().forward(q_x, *others, attn_mask=attn_mask)
        q, k, v = attention_inputs(self, q_x).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v)
        x = add_attention(self, q_x, attended.transpose(1, 2).flatten(2))
        return add_mlp(self, x, mlp_hidden(self, x))


def freeze_blocks(visual: nn.Module) -> None:
    """Make the residual blocks of a frozen image tower `FrozenBlock`s, in place."""
    for module in visual.modules():
        if type(module) is ResidualAttentionBlock and module.attn.batch_first:
            module.__class__ = FrozenBlock


def attention_inputs(block: ResidualAttentionBlock, x: Float[Tensor, "batch tokens width"]) -> Tensor:
    """Return the queries, keys and values of a block's attention: [batch, tokens, 3, heads, width/heads]."""
    attention = block.attn
    qkv = frozen_linear(block.ln_1(x), attention.in_proj_weight, attention.in_proj_bias)
    return qkv.unflatten(-1, (3, attention.num_heads, -1))


def add_attention(block: ResidualAttentionBlock, x: Tensor, attended: Tensor) -> Tensor:
    """Add the output of a block's attention to its residual stream `x`."""
    return x + block.ls_1(block.attn.out_proj(attended))


def mlp_hidden(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    """Return the hidden layer of a block's MLP, 4 · width wide, times 1.702 if its activation is QuickGELU."""
    first, activation, _ = _mlp(block)
    x = block.ln_2(x)
    if not isinstance(activation, FusedQuickGELU):
        return activation(first(x))
    if _is_plain(x):
        rows = torch.addmm(first.bias, x.flatten(0, -2), first.weight.T, beta=SLOPE, alpha=SLOPE)
        x = rows.unflatten(0, x.shape[:-1])
    else:
        x = SLOPE * first(x)
    return F.silu(x, inplace=not torch.is_grad_enabled())


def add_mlp(block: ResidualAttentionBlock, x: Tensor, hidden: Tensor) -> Tensor:
    """Add the output of a block's MLP to its residual stream `x`, given what `mlp_hidden` returned.

    Autograd keeps nothing, as the weights are frozen.
    """
    _, activation, last = _mlp(block)
    if not isinstance(activation, FusedQuickGELU):
        return x + block.ls_2(last(hidden))
    return torch.add(x, block.ls_2(frozen_linear(hidden, last.weight, SLOPE * last.bias)), alpha=1 / SLOPE)


def _mlp(block: Any) -> Any:
    """Return the layers of a block's MLP: linear, activation, linear."""
    return block.mlp


def _is_plain(x: Tensor) -> bool:
    """Return whether torch multiplies `x` by a weight with BLAS in fp32, on a CPU."""
    return (
        not torch.compiler.is_compiling()  # nor exporting
        and not is_onednn_faster()
        and not torch.is_autocast_enabled("cpu")
        and x.device.type == "cpu"
        and x.dtype == torch.float32
    )
