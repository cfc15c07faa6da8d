"""The parts of a frozen block compute what open_clip's own modules do, forwards and backwards, for every activation."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gopro.clip.faster_layers import frozen_block
from gopro.clip.faster_layers.frozen_block import FrozenBlock, add_mlp, freeze_blocks, mlp_hidden
from gopro.clip.faster_layers.quick_gelu import fuse_quick_gelu
from gopro.clip.open_clip_internals import QuickGELU, ResidualAttentionBlock

ACTIVATIONS: dict[str, Any] = {"quick": QuickGELU, "gelu": nn.GELU}
SCALES = (None, 0.3)


def block(activation: str, layer_scale: float | None) -> ResidualAttentionBlock:
    torch.manual_seed(0)
    made = ResidualAttentionBlock(16, 2, act_layer=ACTIVATIONS[activation], ls_init_value=layer_scale)  # pyright: ignore
    for parameter in made.parameters():
        nn.init.normal_(parameter, std=0.3)
    return made.requires_grad_(False).eval()


def fused(plain: ResidualAttentionBlock) -> Any:
    tower = nn.Sequential(copy.deepcopy(plain))
    fuse_quick_gelu(tower)
    freeze_blocks(tower)
    assert type(tower[0]) is FrozenBlock
    return tower[0]


def derivatives(function: Any, x: Tensor) -> tuple[Tensor, ...]:
    """Return a function's value, its first and second gradients and its derivative forwards."""
    x = x.clone().requires_grad_()
    y = function(x)
    (first,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    return y, first, second


@pytest.mark.parametrize("faster", [False, True])
@pytest.mark.parametrize("layer_scale", SCALES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_the_mlp_and_its_derivatives(
    activation: str, layer_scale: float | None, faster: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_block, "is_onednn_faster", lambda: faster)
    plain, x = block(activation, layer_scale), torch.randn(3, 5, 16)
    ours = fused(plain)

    def expected(x: Tensor) -> Tensor:
        return x + plain.ls_2(plain.mlp(plain.ln_2(x)))

    def got(x: Tensor) -> Tensor:
        return add_mlp(ours, x, mlp_hidden(ours, x))

    torch.testing.assert_close(derivatives(got, x), derivatives(expected, x), rtol=1e-4, atol=1e-4)
    tangent = torch.randn_like(x)
    forwards = [torch.func.jvp(function, (x,), (tangent,)) for function in (got, expected)]
    torch.testing.assert_close(*forwards, rtol=1e-4, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(got(x), expected(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer_scale", SCALES)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_block_and_its_gradient(activation: str, layer_scale: float | None) -> None:
    plain, x = block(activation, layer_scale), torch.randn(3, 5, 16)
    ours = fused(plain)
    results = []
    for function in (ours, plain):
        leaf = x.clone().requires_grad_()
        y = function(leaf)
        results.append((y, *torch.autograd.grad(y.sin().sum(), leaf), function(x)))
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-5)


def test_other_calls_are_left_to_open_clip() -> None:
    plain, x = block("quick", None), torch.randn(3, 5, 16)
    ours, mask = fused(plain), torch.full((5, 5), float("-inf")).triu(1)
    torch.testing.assert_close(ours(x, attn_mask=mask), plain(x, attn_mask=mask), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours(x, x + 1, x - 1), plain(x, x + 1, x - 1), rtol=1e-4, atol=1e-5)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(ours(x), plain(x), rtol=0.05, atol=0.1)
