"""The frozen backbone: layer statistics against brute force, and every way of loading one, valid and invalid."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip import factory, pretrained
from open_clip.transformer import QuickGELU
from safetensors.torch import load_file, save_file
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

from gopro.clip.backbone import Backbone, Encoded, from_openai, load_backbone, token_statistics
from gopro.clip.faster_layers.convolutions import PointwiseConv2d
from gopro.clip.faster_layers.quick_gelu import FusedQuickGELU, fuse_quick_gelu
from gopro.clip.text.encode import encode_texts, make_prompts
from gopro.data.images.transforms import Preprocess, normalize
from gopro.errors import InputError

TEXT = {"context_length": 77, "width": 64, "heads": 1, "layers": 2}
TOWERS: dict[str, dict[str, Any]] = {
    "vit": {"image_size": 32, "patch_size": 8, "width": 64, "layers": 3, "head_width": 64},
    "resnet": {"image_size": 32, "width": 16, "layers": [1, 2, 1, 1]},
    "timm-vit": {"image_size": 32, "timm_model_name": "test_vit", "timm_proj": "linear", "timm_pool": "token"},
    "timm-convnext": {"image_size": 64, "timm_model_name": "test_convnext", "timm_proj": "linear"},
    "timm-efficientnet": {"image_size": 64, "timm_model_name": "test_efficientnet", "timm_proj": "linear"},
    # Stages of 36, 18, 9, 5 and 3 pixels: TensorFlow's padding differs between even and odd numbers.
    "timm-efficientnet-lite": {"image_size": 72, "timm_model_name": "tf_efficientnet_lite0", "timm_proj": "linear"},
}


@cache
def model(tower: str, seed: int = 0, quick_gelu: bool = False) -> Any:
    """Return a tiny CLIP with random weights, norms, statistics and biases too, that fp16 would round."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        clip = open_clip.CLIP(48, TOWERS[tower], TEXT, quick_gelu=quick_gelu)
        for parameter in clip.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
        for norm in (module for module in clip.modules() if isinstance(module, nn.BatchNorm2d)):
            norm.running_mean, norm.running_var = torch.randn(norm.num_features), 0.5 + torch.rand(norm.num_features)
    return clip.eval().requires_grad_(False)


@cache
def backbone(tower: str) -> Backbone:
    preprocess = Preprocess(TOWERS[tower]["image_size"], (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return Backbone(tower, copy.deepcopy(model(tower)), open_clip.SimpleTokenizer(), preprocess)


def make_images(tower: str, *leading: int) -> Tensor:
    size = TOWERS[tower]["image_size"]
    return torch.randn(*leading, 3, size, size, generator=torch.Generator().manual_seed(1))


def layer_tokens(tower: str, images: Tensor) -> list[Tensor]:
    """Return the output of each layer, [B, tokens, W], by running the layers one by one."""
    visual, layers = model(tower).visual, []
    if tower == "vit":
        x = visual._embeds(images)
        for block in visual.transformer.resblocks:
            layers.append(x := block(x))
        return layers
    if tower == "timm-vit":
        trunk = visual.trunk
        x = trunk.norm_pre(trunk.patch_drop(trunk._pos_embed(trunk.patch_embed(images))))
        for block in trunk.blocks:
            layers.append(x := block(x))
        return layers
    if tower == "resnet":
        x, stages = visual.stem(images), [getattr(visual, f"layer{i}") for i in (1, 2, 3, 4)]
    elif "efficientnet" in tower:
        x, stages = visual.trunk.bn1(visual.trunk.conv_stem(images)), visual.trunk.blocks
    else:
        x, stages = visual.trunk.stem(images), visual.trunk.stages
    for stage in stages:
        x = stage(x)
        layers.append(torch.stack([x[:, :, i, j] for i in range(x.shape[2]) for j in range(x.shape[3])], dim=1))
    return layers


@pytest.mark.parametrize("tower", TOWERS)
def test_statistics_are_over_the_tokens_of_each_layer(tower: str) -> None:
    images = make_images(tower, 3)
    encoded = backbone(tower).encode(images)
    layers = layer_tokens(tower, images)
    assert backbone(tower).layer_widths == tuple(tokens.shape[-1] for tokens in layers)
    means, stds = [], []
    for tokens in layers:
        n = tokens.shape[1]
        mean = sum(tokens[:, i].double() for i in range(n)) / n
        squares = sum((tokens[:, i].double() - mean) ** 2 for i in range(n))
        means.append(mean)
        stds.append(((squares + 2.3e-8) / n).sqrt())
    # Random weights give means of up to 39 in the Lite tower; timm's own model in fp32 is 1e-4 from fp64 there.
    atol = 2e-4 if tower == "timm-efficientnet-lite" else 1e-5
    torch.testing.assert_close(encoded.mean, torch.cat(means, -1).float(), rtol=1e-5, atol=atol)
    torch.testing.assert_close(encoded.std, torch.cat(stds, -1).float(), rtol=1e-5, atol=atol)
    if "vit" in tower:  # the class token, and patches of 8 or 16 pixels
        assert layers[0].shape[1] == (17 if tower == "vit" else 5)


@pytest.mark.parametrize("tower", TOWERS)
def test_the_embedding_equals_open_clips(tower: str) -> None:
    images = make_images(tower, 2)
    embedding = backbone(tower).encode(images).embedding
    torch.testing.assert_close(embedding, model(tower).encode_image(images, normalize=True))
    assert backbone(tower).embed_dim == embedding.shape[-1] == 48


@pytest.mark.parametrize("tower", TOWERS)
def test_faster_layouts_of_the_weights_leave_the_fingerprint(tower: str) -> None:
    """The feature stores and runs of a model whose batch norms are not fused and whose weights are not channels-last
    stay valid."""
    digest = hashlib.sha256()
    for name, tensor in model(tower).state_dict().items():
        digest.update(f"{name}{tuple(tensor.shape)}".encode() + tensor.float().numpy().tobytes())
    assert backbone(tower).fingerprint() == digest.hexdigest()[:16]
    norms = any(isinstance(module, nn.BatchNorm2d) for module in backbone(tower).model.visual.modules())
    assert norms == (tower == "resnet")
    weights = [m.weight for m in backbone(tower).model.visual.modules() if isinstance(m, nn.Conv2d)]
    channels_last = all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert channels_last == ("vit" not in tower)


def test_an_efficientnet_pads_nothing_ahead_if_its_kernels_may_be_rotated() -> None:
    lite, other = (backbone(f"timm-efficientnet{name}").model.visual.trunk for name in ("-lite", ""))
    assert sum(isinstance(module, Conv2dSame) for module in model("timm-efficientnet-lite").visual.modules()) == 5
    assert not any(isinstance(module, Conv2dSame) for module in lite.modules())
    # The strides of the other pad both sides equally, and would see a rotated image at other positions.
    assert lite.conv_stem._forward_pre_hooks and not other.conv_stem._forward_pre_hooks


def test_pointwise_convolutions_are_computed_by_onednn() -> None:
    """On one thread as well, where torch has a slower kernel of its own for a few images."""
    tower, images = backbone("timm-efficientnet-lite"), make_images("timm-efficientnet-lite", 2)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            tower.encode(images)
    finally:
        torch.set_num_threads(threads)
    kernels = {event.key for event in profile.key_averages()}
    assert "aten::mkldnn_convolution" in kernels and "aten::_slow_conv2d_forward" not in kernels


def test_the_pixels_of_a_single_image_are_multiplied_without_copies() -> None:
    convolution = PointwiseConv2d(6, 8, 1).requires_grad_(False).to(memory_format=torch.channels_last)
    images = torch.randn(2, 6, 5, 7).contiguous(memory_format=torch.channels_last)
    expected = F.conv2d(images, convolution.weight, convolution.bias)
    single = images[:1].contiguous(memory_format=torch.channels_last)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        result = convolution(single)
    assert not {"aten::conv2d", "aten::clone", "aten::contiguous"} & {event.name for event in profile.events()}
    assert result.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(result, expected[:1])
    torch.testing.assert_close(convolution(images), expected)
    convolution.stride = (2, 2)  # leaves pixels out
    torch.testing.assert_close(convolution(single), expected[:1, :, ::2, ::2])


@pytest.mark.parametrize("tower", ["vit", "timm-efficientnet-lite"])
def test_8_bit_views_are_normalised(tower: str) -> None:
    loaded, size = backbone(tower), TOWERS[tower]["image_size"]
    generator = torch.Generator().manual_seed(1)
    views = torch.randint(256, (2, 3, 3, size, size), dtype=torch.uint8, generator=generator)
    encoded, expected = loaded.encode(views), loaded.encode(normalize(views, loaded.preprocess))
    assert torch.equal(encoded.rows(), expected.rows())


def test_a_convolutional_tower_in_half_precision() -> None:
    images = make_images("timm-efficientnet", 2)
    exact = backbone("timm-efficientnet").encode(images)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = backbone("timm-efficientnet").encode(images)
    assert rounded.embedding.dtype == rounded.mean.dtype == torch.float32
    assert (exact.embedding * rounded.embedding).sum(dim=-1).min() > 0.99
    assert not torch.equal(exact.embedding, rounded.embedding)


@pytest.mark.parametrize("leading", [(), (1,), (4,), (2, 3), (1, 1), (2, 1, 2)])
@pytest.mark.parametrize("tower", ["vit", "resnet"])
def test_images_may_have_any_leading_shape(tower: str, leading: tuple[int, ...]) -> None:
    images = make_images(tower, *leading)
    encoded = backbone(tower).encode(images)
    flat = backbone(tower).encode(images.reshape(-1, *images.shape[-3:]))
    for name in ("embedding", "mean", "std"):
        values = getattr(encoded, name)
        assert values.shape[:-1] == leading
        torch.testing.assert_close(values.reshape(-1, values.shape[-1]), getattr(flat, name))


def test_a_convolutional_tower_takes_a_few_images_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for tower, sizes in (("timm-efficientnet", [2, 2, 1]), ("vit", [5])):
        images, taken = make_images(tower, 5), []
        whole = backbone(tower).encode(images)
        monkeypatch.setattr("gopro.clip.backbone.PIXELS_AT_ONCE", 2 * images[0, 0].numel())
        visual = backbone(tower).model.visual
        handle = visual.register_forward_pre_hook(lambda _, arguments, taken=taken: taken.append(len(arguments[0])))
        parts = backbone(tower).encode(images)
        handle.remove()
        assert taken == sizes
        for name in ("embedding", "mean", "std"):
            torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_statistics_of_equal_tokens() -> None:
    mean, std = token_statistics(torch.full((2, 9, 4), 3.0))
    assert mean.eq(3).all()
    torch.testing.assert_close(std, torch.full((2, 4), (2.3e-8 / 9) ** 0.5))


def test_a_backbone_is_frozen() -> None:
    images = make_images("vit", 1).requires_grad_()
    encoded = backbone("vit").encode(images)
    assert not any(t.requires_grad for t in (encoded.embedding, encoded.mean, encoded.std))
    assert not any(p.requires_grad for p in backbone("vit").model.parameters())
    assert not any(module.training for module in backbone("resnet").model.modules())


def test_threads_do_not_mix_their_statistics() -> None:
    batches = [make_images("vit", 2) + i for i in range(12)]
    expected = [backbone("vit").encode(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for right, encoded in zip(expected, pool.map(backbone("vit").encode, batches), strict=True):
            torch.testing.assert_close(encoded.mean, right.mean)
            torch.testing.assert_close(encoded.std, right.std)


def test_encoded_fields_are_indexed_split_and_joined_alike() -> None:
    encoded = backbone("vit").encode(make_images("vit", 6))
    split = encoded.unflatten(2, 3)
    assert split.mean.shape == (2, 3, encoded.mean.shape[-1])
    joined = Encoded.cat([split[0], encoded[3:]]).to("cpu")
    for name in ("embedding", "mean", "std"):
        assert torch.equal(getattr(joined, name), getattr(encoded, name))


def test_an_image_tower_without_known_layers_is_refused() -> None:
    clip = copy.copy(model("vit"))
    clip._modules = {**clip._modules, "visual": nn.Identity()}
    with pytest.raises(InputError, match="image tower Identity: it has no layers"):
        Backbone("flat", clip, open_clip.SimpleTokenizer(), Preprocess(32, (0, 0, 0), (1, 1, 1)))


@pytest.mark.parametrize(
    ("architecture", "widths", "embed_dim"),
    [
        ("ViT-B-32", (768,) * 12, 512),
        ("ViT-B-16", (768,) * 12, 512),
        ("ViT-L-14", (1024,) * 24, 768),
        ("RN50", (256, 512, 1024, 2048), 1024),
    ],
)
def test_widths_of_the_usual_backbones(architecture: str, widths: tuple[int, ...], embed_dim: int) -> None:
    """On the meta device, where tensors have shapes and no values."""
    config = open_clip.get_model_config(architecture)
    assert config is not None
    with torch.device("meta"):
        clip: Any = open_clip.CLIP(**config)
    clip.logit_scale = nn.Parameter(torch.tensor(4.6))
    size = config["vision_cfg"]["image_size"]
    loaded = Backbone(architecture, clip, open_clip.SimpleTokenizer(), Preprocess(size, (0, 0, 0), (1, 1, 1)))
    assert (loaded.layer_widths, loaded.embed_dim) == (widths, embed_dim)
    encoded = loaded.encode(torch.zeros(2, 3, size, size, device="meta"))
    assert encoded.std.shape == (2, sum(widths))


# Loading. `tiny` is registered like an architecture that comes with open_clip.


@pytest.fixture(autouse=True)
def _architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = {
        "tiny": {"embed_dim": 48, "vision_cfg": TOWERS["vit"], "text_cfg": TEXT},
        "tiny-quickgelu": {"embed_dim": 48, "vision_cfg": TOWERS["vit"], "text_cfg": TEXT, "quick_gelu": True},
        "tiny-custom": {"embed_dim": 48, "vision_cfg": TOWERS["vit"], "text_cfg": TEXT, "custom_text": True},
        "tiny-wide": {"embed_dim": 48, "vision_cfg": {**TOWERS["vit"], "width": 128}, "text_cfg": TEXT},
    }
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, **configs})


def tags(monkeypatch: pytest.MonkeyPatch, architecture: str, **tags: dict[str, Any]) -> None:
    monkeypatch.setitem(pretrained._PRETRAINED, architecture, tags)


def weights_of(loaded: Backbone) -> dict[str, Tensor]:
    return loaded.model.state_dict()


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def fault(name: str) -> str:
    with pytest.raises(InputError) as caught:
        load_backbone(name)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 1000
    return message


def test_random_weights_are_reproducible_and_do_not_touch_the_generator() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = load_backbone("tiny:random"), load_backbone("tiny:random")
    assert torch.equal(torch.random.get_rng_state(), before)
    assert same_weights(weights_of(first), weights_of(second))
    assert first.name == "tiny:random"
    assert first.preprocess.size == 32
    assert first.layer_widths == (64, 64, 64)


def test_an_architecture_of_open_clip_with_random_weights() -> None:
    loaded = load_backbone("ViT-S-32-alt:random")
    assert loaded.layer_widths == (384,) * 12
    assert loaded.logit_scale == pytest.approx(1 / 0.07)
    assert loaded.encode(torch.zeros(1, 3, 224, 224)).embedding.shape == (1, 256)


@pytest.mark.parametrize(
    "form", ["safetensors", "pt", "checkpoint", "loop", "model", "compiled", "compiled tower", "home"]
)
def test_a_local_weights_file(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = model("vit").state_dict()
    name = f"tiny:{tmp_path}/weights.pt"
    if form == "safetensors":
        name = f"tiny:{tmp_path}/weights.safetensors"
        save_file(state, tmp_path / "weights.safetensors")
    elif form == "checkpoint":  # as written by open_clip's training
        state_dict = {f"module.{key}": tensor for key, tensor in state.items()}
        torch.save({"epoch": 3, "name": "x", "state_dict": state_dict}, tmp_path / "weights.pt")
    elif form == "model":
        torch.save({"model": state, "step": 7}, tmp_path / "weights.pt")
    elif form == "loop":  # as written by many training loops
        optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(2))])
        content = {"epoch": 3, "model_state_dict": state, "optimizer_state_dict": optimizer.state_dict()}
        torch.save(content, tmp_path / "weights.pt")
    elif form == "compiled":  # torch.compile inside of DistributedDataParallel
        torch.save({f"module._orig_mod.{key}": tensor for key, tensor in state.items()}, tmp_path / "weights.pt")
    elif form == "compiled tower":
        compiled = {key.replace("visual.", "visual._orig_mod."): tensor for key, tensor in state.items()}
        torch.save(compiled, tmp_path / "weights.pt")
    else:
        torch.save(state, tmp_path / "weights.pt")
    if form == "home":
        monkeypatch.setenv("HOME", str(tmp_path))
        name = "tiny:~/weights.pt"
    loaded = load_backbone(name)
    assert loaded.name == name
    assert same_weights(weights_of(loaded), state)
    images = make_images("vit", 2)
    torch.testing.assert_close(loaded.encode(images).embedding, model("vit").encode_image(images, normalize=True))


def test_weights_of_the_plain_layout_fit_an_architecture_with_a_text_module(tmp_path: Path) -> None:
    save_file(model("vit").state_dict(), tmp_path / "w.safetensors")
    loaded = load_backbone(f"tiny-custom:{tmp_path}/w.safetensors")
    assert torch.equal(weights_of(loaded)["text.text_projection"], model("vit").text_projection)


@pytest.mark.parametrize("suffix", ["safetensors", "pt"])
def test_openai_layout_is_read_without_rounding(suffix: str, tmp_path: Path) -> None:
    clip = model("vit", quick_gelu=True)
    path = tmp_path / f"w.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(clip.state_dict(), path)
    loaded = load_backbone(f"openai:{path}")
    assert same_weights(weights_of(loaded), clip.state_dict())
    images = make_images("vit", 2)
    torch.testing.assert_close(loaded.encode(images).embedding, clip.encode_image(images, normalize=True))
    tokens = open_clip.SimpleTokenizer()(["a dog."])
    features = make_prompts(loaded.text, ["dog"], before=1)(loaded.text.embed("a"))[0]
    torch.testing.assert_close(features, clip.encode_text(tokens, normalize=True), rtol=1e-5, atol=1e-5)


def test_the_fused_activation_equals_open_clips_and_keeps_one_tensor() -> None:
    x = torch.linspace(-9, 9, 4001, requires_grad=True)
    saved: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        fused = FusedQuickGELU()(x)
    assert sum(t.numel() for t in saved if t.numel() > 1) == x.numel()
    expected = QuickGELU()(x)
    torch.testing.assert_close(fused, expected)
    weights = torch.randn(4001)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (fused, expected)]
    torch.testing.assert_close(*gradients)
    clip = model("vit", quick_gelu=True)
    fuse_quick_gelu(clip)
    assert not any(isinstance(module, QuickGELU) for module in clip.modules())
    assert sum(isinstance(module, FusedQuickGELU) for module in clip.modules()) == 3 + 2


def test_openai_layout_of_a_resnet() -> None:
    state = model("resnet", quick_gelu=True).state_dict()
    loaded = from_openai(state)
    assert loaded.layer_widths == (64, 128, 256, 512)
    assert same_weights(weights_of(loaded), state)


def test_the_clip_of_the_recorded_step_loads(shared: Path, tmp_path: Path) -> None:
    tensors = load_file(shared / "reference" / "reference_step.safetensors")
    state = {key.removeprefix("clip."): t for key, t in tensors.items() if key.startswith("clip.")}
    save_file(state, tmp_path / "clip.safetensors")
    loaded = load_backbone(f"openai:{tmp_path}/clip.safetensors")
    assert (loaded.layer_widths, loaded.embed_dim, loaded.preprocess.size) == ((128,) * 3, 64, 64)
    assert (loaded.text.width, len(loaded.text.blocks), loaded.text.context_length) == (64, 4, 77)
    assert loaded.encode(tensors["views.image"]).embedding.shape == (5, 64)
    assert same_weights(weights_of(loaded), state)


def test_a_tag_determines_activation_and_preprocessing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI's weights need QuickGELU, whatever the architecture's name."""
    clip = model("vit", quick_gelu=True)
    save_file(clip.state_dict(), tmp_path / "w.safetensors")
    preprocessing = {
        "mean": (0.1, 0.2, 0.3),
        "std": (0.4, 0.5, 0.6),
        "interpolation": "bilinear",
        "resize_mode": "squash",
    }
    tags(monkeypatch, "tiny", openai={"file": str(tmp_path / "w.safetensors"), "quick_gelu": True, **preprocessing})
    loaded = load_backbone("tiny:openai")
    images = make_images("vit", 2)
    torch.testing.assert_close(loaded.encode(images).embedding, clip.encode_image(images, normalize=True))
    assert loaded.preprocess == Preprocess(32, **preprocessing)
    # images for a local file of the architecture are prepared alike
    assert load_backbone(f"tiny:{tmp_path}/w.safetensors").preprocess == Preprocess(32, **preprocessing)


def test_weights_at_another_place_keep_the_conventions_of_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = model("vit", quick_gelu=True)
    save_file(clip.state_dict(), tmp_path / "w.safetensors")
    mean, std = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)
    first = {"hf_hub": "someone/tiny/", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    tags(monkeypatch, "tiny", web=first, openai={"hf_hub": "x/y/", "quick_gelu": True, "mean": mean, "std": std})
    loaded = load_backbone("tiny:openai", weights=tmp_path / "w.safetensors")
    images = make_images("vit", 2)
    torch.testing.assert_close(loaded.encode(images).embedding, clip.encode_image(images, normalize=True))
    assert (loaded.preprocess.mean, loaded.preprocess.std, loaded.name) == (mean, std, "tiny:openai")
    plain = load_backbone(f"tiny:{tmp_path}/w.safetensors")
    assert plain.preprocess.mean == (0.5,) * 3 and plain.fingerprint() == loaded.fingerprint()
    assert (plain.quick_gelu, loaded.quick_gelu) == (False, True)
    elsewhere = load_backbone("openai:nowhere.pt", weights=tmp_path / "w.safetensors")
    torch.testing.assert_close(elsewhere.encode(images).embedding, loaded.encode(images).embedding)
    with pytest.raises(InputError, match=r"backbone 'emoji' comes with its weights: w\.pt is not needed"):
        load_backbone("emoji", weights="w.pt")


def test_quick_gelu_is_requested_for_the_tags_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    requested = []

    def create_model(architecture: str, **options: Any) -> None:
        requested.append(options["force_quick_gelu"])
        raise RuntimeError("no network")

    monkeypatch.setattr(open_clip, "create_model", create_model)
    assert "use ViT-B-16-quickgelu:FILE" in fault("ViT-B-16:openai")
    assert "use ViT-B-16:FILE" in fault("ViT-B-16:laion2b_s34b_b88k")
    assert requested == [True, False]


class Malicious:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("architecture", ["openai", "tiny"])
def test_a_pickle_is_not_executed(architecture: str, tmp_path: Path) -> None:
    torch.save({"visual.proj": torch.zeros(2), "x": Malicious(tmp_path / "executed")}, tmp_path / "w.pt")
    message = fault(f"{architecture}:{tmp_path}/w.pt")
    assert f"{tmp_path}/w.pt is not opened: it holds more than tensors" in message
    assert "safetensors" in message
    assert not (tmp_path / "executed").exists()
    torch.load(tmp_path / "w.pt", weights_only=False)  # the file is indeed malicious
    assert (tmp_path / "executed").exists()


NOISE = random.Random(4).randbytes(4096)


@pytest.mark.parametrize(
    "content", [b"", b"not weights", NOISE, b"PK\x03\x04" + NOISE[:500]], ids=["empty", "text", "noise", "zip"]
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors", "bin"])
def test_a_damaged_file_is_refused_by_name(content: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"w.{suffix}"
    path.write_bytes(content)
    for architecture in ("openai", "tiny"):
        assert f"{path} cannot be read as plain tensors" in fault(f"{architecture}:{path}")


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"a": 3}, {0: torch.zeros(2)}, torch.zeros(2)], ids=str)
def test_a_file_without_a_state_dict_is_refused_by_name(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "w.pt")
    for architecture in ("openai", "tiny"):
        assert f"{tmp_path}/w.pt holds no state dict" in fault(f"{architecture}:{tmp_path}/w.pt")


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    save_file(model("vit").state_dict(), tmp_path / "vit.safetensors")
    save_file(model("resnet").state_dict(), tmp_path / "resnet.safetensors")
    message = fault(f"tiny-wide:{tmp_path}/vit.safetensors")
    assert f"{tmp_path}/vit.safetensors does not hold weights of tiny-wide" in message
    assert "size mismatch" in message
    assert "Missing key" in fault(f"tiny:{tmp_path}/resnet.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda state: {},
        lambda state: {"visual.proj": torch.zeros(3)},
        lambda state: {k: v for k, v in state.items() if "ln_2" not in k},
        lambda state: {**state, "extra": torch.zeros(1)},
        lambda state: {**state, "text_projection": torch.zeros(3)},
        lambda state: {**state, "ln_final.weight": torch.zeros(3)},
        lambda state: {**state, "visual.positional_embedding": torch.zeros(5, 5)},
        lambda state: {f"model.{k}": v for k, v in state.items()},
    ],
)
def test_a_state_dict_of_another_layout_is_refused(change: Any, tmp_path: Path) -> None:
    torch.save(change(model("vit").state_dict()), tmp_path / "w.pt")
    assert f"openai:{tmp_path}/w.pt does not hold a CLIP in OpenAI's layout" in fault(f"openai:{tmp_path}/w.pt")


def test_unknown_names_are_refused_with_suggestions(tmp_path: Path) -> None:
    assert "did you mean ViT-B-32 or" in fault("ViT-B/32:openai")
    assert "no such model" in fault("clip:random")
    assert "no such model" in fault("")
    assert "ViT-B-32:openai" in fault("ViT-B-32")
    assert "ViT-B-32:FILE, ViT-B-32:random" in fault("ViT-B-32")
    assert "did you mean openai?" in fault("ViT-B-32:opena")
    missing = f"{tmp_path}/none.safetensors"
    assert f"{missing}: no such weights file" in fault(f"openai:{missing}")
    assert f"'{missing}' is neither a file nor a pretrained tag of ViT-B-32" in fault(f"ViT-B-32:{missing}")
    assert "neither a file" in fault(f"tiny:{tmp_path}")


def test_models_that_cannot_take_learned_context_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "cannot take learned context" in fault("roberta-ViT-B-32:random")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install transformers" in fault("ViT-B-16-SigLIP:random")


def test_a_failed_download_is_reported_on_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def hf_hub_download(**options: Any) -> str:
        raise OSError(f"cannot reach\nthe hub for {options['repo_id']}")

    monkeypatch.setattr("gopro.network.unreachable", lambda url: None)
    monkeypatch.setattr(pretrained, "hf_hub_download", hf_hub_download)
    tags(monkeypatch, "tiny", web={"hf_hub": "someone/tiny/"})
    message = fault("tiny:web")
    assert "'tiny:web' could not be downloaded" in message
    assert "the hub for someone/tiny" in message
    assert message.endswith("use tiny:FILE")
    assert not caplog.records  # the error is not logged as well


class Hub(BaseHTTPRequestHandler):
    """The part of a model hub that a download needs."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        content = self.files.get(self.path)
        self.send_response(404 if content is None else 200)
        self.send_header("Content-Length", str(len(content or b"")))
        if content is None:
            self.send_header("X-Error-Code", "EntryNotFound")
        else:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("X-Repo-Commit", "0" * 40)
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.files.get(self.path, b""))

    def log_message(self, format: str, *args: Any) -> None:
        pass


SCRIPT = """
import json, sys
from open_clip import factory, pretrained
from open_clip.transformer import QuickGELU
from gopro.clip.backbone import load_backbone
factory._MODEL_CONFIGS["tiny"] = json.loads(sys.argv[1])
pretrained._PRETRAINED["tiny"] = {"web": {"hf_hub": "someone/tiny/"}}
print("fingerprints", load_backbone("tiny:random").fingerprint(), load_backbone("tiny:web").fingerprint())
"""


def test_another_process_downloads_and_computes_the_same_fingerprint(tmp_path: Path) -> None:
    save_file(model("vit").state_dict(), tmp_path / "w.safetensors")
    content = (tmp_path / "w.safetensors").read_bytes()
    handler = type("Handler", (Hub,), {"files": {"/someone/tiny/resolve/main/open_clip_model.safetensors": content}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        environment = {
            **{key: value for key, value in os.environ.items() if "proxy" not in key.lower()},
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_HOME": str(tmp_path / "hub"),
            "HF_HUB_OFFLINE": "0",
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        config = json.dumps(factory._MODEL_CONFIGS["tiny"])
        ran = subprocess.run(
            [sys.executable, "-c", SCRIPT, config], env=environment, capture_output=True, text=True, timeout=300
        )
    finally:
        server.shutdown()
        server.server_close()
    assert ran.returncode == 0, ran.stderr
    printed = re.search("fingerprints (.*)", ran.stdout)
    assert printed is not None
    random, downloaded = printed[1].split()
    assert random == load_backbone("tiny:random").fingerprint()
    assert downloaded == backbone("vit").fingerprint()
    assert random != downloaded


def test_fingerprints_differ_between_models() -> None:
    prints = {backbone(tower).fingerprint() for tower in TOWERS}
    assert len(prints) == len(TOWERS)
    changed = copy.deepcopy(model("vit"))
    same = Backbone("other name", changed, open_clip.SimpleTokenizer(), backbone("vit").preprocess)
    assert same.fingerprint() == backbone("vit").fingerprint()
    changed.visual.transformer.resblocks[2].mlp.c_proj.weight[-1, -1] += 1e-3
    other = Backbone("other name", changed, open_clip.SimpleTokenizer(), backbone("vit").preprocess)
    assert other.fingerprint() != backbone("vit").fingerprint()


def test_logits_equal_open_clips() -> None:
    """Image embedding, text features and `logit_scale` give open_clip's logits."""
    loaded, clip = backbone("vit"), model("vit")
    images = make_images("vit", 2)
    tokens = open_clip.SimpleTokenizer()(["a dog", "two cats"])
    expected, _ = clip.get_logits(images, tokens)
    logits = loaded.logit_scale * loaded.encode(images).embedding @ encode_texts(loaded.text, ["a dog", "two cats"]).T
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
