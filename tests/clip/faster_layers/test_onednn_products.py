"""Products by oneDNN are those of torch up to rounding, with their gradients, and nothing changes elsewhere."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gopro.clip.backbone import load_backbone
from gopro.clip.faster_layers import onednn_products
from gopro.clip.faster_layers.onednn_products import (
    FrozenLinear,
    FrozenSelfAttention,
    frozen_linear,
    use_onednn_products,
)

needs_onednn = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this torch has no oneDNN")


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have oneDNN compute whatever the processor is."""
    monkeypatch.setattr(onednn_products, "is_onednn_faster", lambda: True)


def layer(inputs: int = 6, outputs: int = 5) -> tuple[Tensor, Tensor]:
    return torch.randn(outputs, inputs), torch.randn(outputs)


@needs_onednn
@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("shape", [(6,), (4, 6), (2, 3, 6), (0, 6)])
def test_the_product_and_its_gradients_are_those_of_torch(shape: tuple[int, ...]) -> None:
    weight, bias = layer()
    x = torch.randn(shape, requires_grad=True)

    def gradients(y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        (first,) = torch.autograd.grad(y.sin().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x)
        return y, first, second

    expected = gradients(F.linear(x, weight, bias))
    torch.testing.assert_close(gradients(frozen_linear(x, weight, bias)), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(frozen_linear(x, weight, None), F.linear(x, weight))


@needs_onednn
@pytest.mark.usefixtures("faster")
def test_layouts_other_than_rows_one_after_the_other() -> None:
    weight, bias = layer()
    for x in (torch.randn(6, 4).T, torch.randn(1, 6).expand(4, 6), torch.randn(3, 9, 6)[:, 2:5].transpose(0, 1)):
        torch.testing.assert_close(frozen_linear(x, weight, bias), F.linear(x, weight, bias))


@pytest.mark.usefixtures("faster")
def test_a_weight_that_is_trained_gets_its_gradient() -> None:
    weight, bias = layer()
    frozen_linear(torch.randn(4, 6), weight.requires_grad_(), bias).sum().backward()
    assert weight.grad is not None


@pytest.mark.usefixtures("faster")
def test_autocast_and_half_precision_are_left_to_torch() -> None:
    weight, bias = layer()
    with torch.autocast("cpu", torch.bfloat16):
        assert frozen_linear(torch.randn(4, 6), weight, bias).dtype == torch.bfloat16
    assert frozen_linear(torch.randn(4, 6).bfloat16(), weight.bfloat16(), None).dtype == torch.bfloat16


@needs_onednn
@pytest.mark.usefixtures("faster")
@pytest.mark.parametrize("masked", [False, True])
def test_self_attention_is_that_of_torch(masked: bool) -> None:
    torch.manual_seed(0)
    block = nn.ModuleDict({"attention": nn.MultiheadAttention(8, 2, batch_first=True)}).requires_grad_(False).eval()
    x = torch.randn(3, 5, 8)
    mask = torch.full((5, 5), float("-inf")).triu(1) if masked else None
    expected, _ = block["attention"](x, x, x, need_weights=False, attn_mask=mask)
    cross, weights = block["attention"](x, x + 1, x, attn_mask=mask)
    use_onednn_products(block)
    assert type(block["attention"]) is FrozenSelfAttention
    torch.testing.assert_close(block["attention"](x, x, x, need_weights=False, attn_mask=mask)[0], expected)
    torch.testing.assert_close(block["attention"](x, x + 1, x, attn_mask=mask), (cross, weights))


@needs_onednn
@pytest.mark.parametrize("name", ["emoji", "photo"])
def test_a_backbone_has_the_same_features(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(faster: bool) -> tuple[Tensor, Tensor, str]:
        monkeypatch.setattr(onednn_products, "is_onednn_faster", lambda: faster)
        backbone = load_backbone(name)
        kinds = {type(module) for module in backbone.model.modules()}
        assert faster == bool(kinds & {FrozenLinear, FrozenSelfAttention})
        torch.manual_seed(0)
        images = torch.randn(3, 3, backbone.preprocess.size, backbone.preprocess.size)
        text = backbone.model.encode_text(open_clip.tokenize(["a photo of a dog", "a kite"]))
        return backbone.encode(images).rows(), text, backbone.fingerprint()

    *expected, fingerprint = encode(False)
    *got, other = encode(True)
    assert other == fingerprint
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("capability", "processor", "expected"),
    [("AVX512", "AuthenticAMD", True), ("AVX512", "GenuineIntel", False), ("AVX2", "AuthenticAMD", False)],
)
@needs_onednn
def test_only_amd_processors_with_avx_512(
    capability: str, processor: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(Path, "read_text", lambda self: f"vendor_id\t: {processor}\n")
    assert onednn_products.is_onednn_faster.__wrapped__() is expected


def test_other_systems_describe_their_processor_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(self: Path) -> str:
        raise FileNotFoundError(self)

    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(Path, "read_text", missing)
    assert not onednn_products.is_onednn_faster.__wrapped__()
