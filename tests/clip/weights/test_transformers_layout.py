"""Weights in the layout of `transformers` load into open_clip's models unchanged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from open_clip import factory
from safetensors.torch import save_file
from timm.models import register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from gopro.clip.backbone import load_backbone
from gopro.clip.weights.transformers_layout import from_transformers
from gopro.errors import InputError

IMAGE = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 2, "head_width": 64}
TEXT = {"context_length": 77, "width": 64, "heads": 1, "layers": 2}
CONFIG = {"embed_dim": 48, "vision_cfg": IMAGE, "text_cfg": TEXT, "quick_gelu": True}
SIGLIP_TEXT = {**TEXT, "context_length": 16, "vocab_size": 100, "no_causal_mask": True, "proj_bias": True}
SIGLIP_TEXT |= {"pool_type": "last", "norm_kwargs": {"eps": 1e-6}}
SIGLIP_IMAGE = {"image_size": 32, "timm_model_name": "gopro_tiny_siglip", "timm_pool": "map", "timm_proj": "none"}


@register_model
def gopro_tiny_siglip(pretrained: bool = False, **options: Any) -> VisionTransformer:
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 2, "num_heads": 1, "class_token": False}
    return VisionTransformer(**sizes, global_pool="map", num_classes=0)


@pytest.fixture(autouse=True)
def _architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = {"tiny-quickgelu": CONFIG, "tiny-custom": {**CONFIG, "custom_text": True}}
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, **configs})


def random_clip() -> Any:
    clip = open_clip.CLIP(48, IMAGE, TEXT, quick_gelu=True)
    return with_noise(clip)


def random_siglip() -> Any:
    assert timm.is_model("gopro_tiny_siglip")
    return with_noise(open_clip.CustomTextCLIP(64, SIGLIP_IMAGE, SIGLIP_TEXT, init_logit_bias=-10))


def with_noise(model: Any) -> Any:
    for parameter in model.parameters():
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model.eval().requires_grad_(False)


def block(state: dict[str, Tensor], old: str, new: str, names: dict[str, str], qkv: str) -> dict[str, Tensor]:
    """Write a block with three matrices for queries, keys and values."""
    written = {}
    for end in ("weight", "bias"):
        for letter, part in zip("qkv", state[f"{old}.{qkv}{end}"].chunk(3), strict=True):
            written[f"{new}.self_attn.{letter}_proj.{end}"] = part
        written |= {f"{new}.{to}.{end}": state[f"{old}.{name}.{end}"] for name, to in names.items()}
    return written


BLOCK = {"attn.out_proj": "self_attn.out_proj", "ln_1": "layer_norm1", "ln_2": "layer_norm2"}
BLOCK |= {"mlp.c_fc": "mlp.fc1", "mlp.c_proj": "mlp.fc2"}
TIMM = {"attn.proj": "self_attn.out_proj", "norm1": "layer_norm1", "norm2": "layer_norm2"}
TIMM |= {"mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}


def written_by_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write a CLIP's weights as `CLIPModel.save_pretrained` does."""
    image, text = "vision_model.", "text_model."
    written = {
        "logit_scale": state["logit_scale"],
        f"{text}embeddings.token_embedding.weight": state["token_embedding.weight"],
        f"{text}embeddings.position_embedding.weight": state["positional_embedding"],
        f"{text}embeddings.position_ids": torch.arange(77)[None],  # files of early versions have these
        f"{image}embeddings.class_embedding": state["visual.class_embedding"],
        f"{image}embeddings.patch_embedding.weight": state["visual.conv1.weight"],
        f"{image}embeddings.position_embedding.weight": state["visual.positional_embedding"],
        f"{image}embeddings.position_ids": torch.arange(17)[None],
        "visual_projection.weight": state["visual.proj"].T,
        "text_projection.weight": state["text_projection"].T,
    }
    for end in ("weight", "bias"):
        written[f"{image}pre_layrnorm.{end}"] = state[f"visual.ln_pre.{end}"]
        written[f"{image}post_layernorm.{end}"] = state[f"visual.ln_post.{end}"]
        written[f"{text}final_layer_norm.{end}"] = state[f"ln_final.{end}"]
    for i in range(2):
        old, new = f"visual.transformer.resblocks.{i}", f"{image}encoder.layers.{i}"
        written |= block(state, old, new, BLOCK, "attn.in_proj_")
        old, new = f"transformer.resblocks.{i}", f"{text}encoder.layers.{i}"
        written |= block(state, old, new, BLOCK, "attn.in_proj_")
    return {key: tensor.clone().contiguous() for key, tensor in written.items()}


def siglip_written_by_transformers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write a SigLIP's weights as `SiglipModel.save_pretrained` does."""
    image, text, trunk = "vision_model.", "text_model.", "visual.trunk."
    written = {
        "logit_scale": state["logit_scale"].reshape(1),
        "logit_bias": state["logit_bias"].reshape(1),
        f"{text}embeddings.token_embedding.weight": state["text.token_embedding.weight"],
        f"{text}embeddings.position_embedding.weight": state["text.positional_embedding"],
        f"{image}embeddings.position_embedding.weight": state[f"{trunk}pos_embed"][0],
        f"{image}head.probe": state[f"{trunk}attn_pool.latent"],
    }
    for end in ("weight", "bias"):
        written[f"{text}final_layer_norm.{end}"] = state[f"text.ln_final.{end}"]
        written[f"{text}head.{end}"] = state[f"text.text_projection.{end}"]
        written[f"{image}embeddings.patch_embedding.{end}"] = state[f"{trunk}patch_embed.proj.{end}"]
        written[f"{image}post_layernorm.{end}"] = state[f"{trunk}norm.{end}"]
        pool = {part: state[f"{trunk}attn_pool.{part}.{end}"] for part in ("q", "kv", "proj", "norm", "mlp.fc1")}
        written[f"{image}head.attention.in_proj_{end}"] = torch.cat([pool["q"], pool["kv"]])
        written[f"{image}head.attention.out_proj.{end}"] = pool["proj"]
        written[f"{image}head.layernorm.{end}"] = pool["norm"]
        written[f"{image}head.mlp.fc1.{end}"] = pool["mlp.fc1"]
        written[f"{image}head.mlp.fc2.{end}"] = state[f"{trunk}attn_pool.mlp.fc2.{end}"]
    for i in range(2):
        written |= block(state, f"{trunk}blocks.{i}", f"{image}encoder.layers.{i}", TIMM, "attn.qkv.")
        old, new = f"text.transformer.resblocks.{i}", f"{text}encoder.layers.{i}"
        written |= block(state, old, new, BLOCK, "attn.in_proj_")
    return written


def same_weights(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.parametrize("form", ["model.safetensors", "pytorch_model.bin"])
@pytest.mark.parametrize("architecture", ["tiny-quickgelu", "tiny-custom", "openai"])
def test_a_clip_saved_by_transformers_is_read(form: str, architecture: str, tmp_path: Path) -> None:
    clip = random_clip()
    state = written_by_transformers(clip.state_dict())
    (save_file if form.endswith("safetensors") else torch.save)(state, tmp_path / form)
    loaded = load_backbone(f"{architecture}:{tmp_path / form}")
    images = torch.randn(2, 3, 32, 32)
    expected = clip.encode_image(images, normalize=True)
    torch.testing.assert_close(loaded.encode(images).embedding, expected, rtol=1e-5, atol=1e-6)
    if architecture != "tiny-custom":
        assert same_weights(loaded.model.state_dict(), clip.state_dict())


def test_a_siglip_saved_by_transformers_is_renamed() -> None:
    state = random_siglip().state_dict()
    assert same_weights(from_transformers(siglip_written_by_transformers(state)), state)


def test_other_layouts_and_unknown_tensors_are_left_as_they_are() -> None:
    state = random_clip().state_dict()
    assert from_transformers(state) is state
    renamed = from_transformers({**written_by_transformers(state), "extra.weight": torch.zeros(1)})
    assert renamed.keys() == {*state, "extra.weight"}


@pytest.mark.parametrize(
    ("activation", "right", "wrong"), [("quick_gelu", "-quickgelu", ""), ("gelu", "", "-quickgelu")]
)
def test_the_activation_that_transformers_recorded_is_not_ignored(
    activation: str, right: str, wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(factory._MODEL_CONFIGS, "tiny", {**CONFIG, "quick_gelu": False})
    monkeypatch.setattr(open_clip, "list_models", lambda: ["tiny", "tiny-quickgelu"])
    file = tmp_path / "model.safetensors"
    save_file(written_by_transformers(random_clip().state_dict()), file)
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": {"hidden_act": activation}}))
    assert load_backbone(f"tiny{right}:{file}").quick_gelu is (activation == "quick_gelu")
    with pytest.raises(InputError, match=rf"its config\.json says that the model has .*: use tiny{right}:{file}$"):
        load_backbone(f"tiny{wrong}:{file}")
    for content in ("no JSON", "[]", "{}", '{"vision_config": {"hidden_act": ["gelu"]}}', "[" * 100_000):
        (tmp_path / "config.json").write_text(content)
        load_backbone(f"tiny{wrong}:{file}")


def test_transformers_own_models_give_the_same_features(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers, the reference, is not installed")
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    image = {**sizes, "image_size": 32, "patch_size": 8}
    text = {**sizes, "vocab_size": 49408, "max_position_embeddings": 77, "eos_token_id": 49407}
    config = transformers.CLIPConfig(text_config=text, vision_config=image, projection_dim=48)
    clip = with_noise(transformers.CLIPModel(config))
    clip.save_pretrained(tmp_path)
    loaded = load_backbone(f"tiny-quickgelu:{tmp_path}/model.safetensors")
    images, tokens = torch.randn(2, 3, 32, 32), open_clip.SimpleTokenizer()(["a dog", "two cats"])
    expected = clip(input_ids=tokens, pixel_values=images)
    torch.testing.assert_close(loaded.encode(images).embedding, expected.image_embeds, rtol=1e-4, atol=1e-5)
    encoded = loaded.model.encode_text(tokens, normalize=True)
    torch.testing.assert_close(encoded, expected.text_embeds, rtol=1e-4, atol=1e-5)


def test_transformers_own_siglip_gives_the_same_features() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers, the reference, is not installed")
    sizes = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 1}
    image = {**sizes, "image_size": 32, "patch_size": 8, "hidden_act": "gelu"}
    text = {**sizes, "vocab_size": 100, "max_position_embeddings": 16, "hidden_act": "gelu", "projection_size": 64}
    config = transformers.SiglipConfig(text_config=text, vision_config=image)
    theirs, ours = with_noise(transformers.SiglipModel(config)), random_siglip()
    ours.load_state_dict(from_transformers(theirs.state_dict()))
    images, tokens = torch.randn(2, 3, 32, 32), torch.randint(2, 100, (2, 16))
    expected = theirs(input_ids=tokens, pixel_values=images)
    torch.testing.assert_close(ours.encode_image(images, normalize=True), expected.image_embeds, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours.encode_text(tokens, normalize=True), expected.text_embeds, rtol=1e-4, atol=1e-5)
