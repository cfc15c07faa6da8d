"""The embedded models: which data gets which, and compact files of weights."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from gopro.benchmark.protocols import base_to_new, cross_dataset
from gopro.clip.backbone import load_backbone
from gopro.clip.weights import embedded
from gopro.clip.weights.embedded import EmbeddedModel, default_backbone
from gopro.clip.weights.load_embedded import load_embedded
from gopro.errors import InputError
from gopro.runs.config import BenchmarkConfig, TrainConfig, TransferConfig
from tests.support.fake_sweep import own_images

MODEL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {
        "timm_model_name": "tf_efficientnet_lite0",
        "timm_pool": "avg",
        "timm_proj": "linear",
        "timm_proj_bias": True,
        "image_size": 64,
    },
    "text_cfg": {"width": 32, "heads": 2, "layers": 1},
}


@pytest.fixture
def own(tmp_path: Path) -> str:
    return own_images(tmp_path / "mine")


def test_a_run_records_the_backbone_that_suits_its_data(own: str) -> None:
    for data, backbone in (
        ("emoji-food:noto", "emoji"),
        (own, default_backbone(own)),
        ("caltech101", embedded.DEFAULT),
    ):
        config = TrainConfig(data=data, output=Path("run"))
        assert config.backbone == config.to_json()["backbone"] == backbone
        assert TrainConfig.from_json(config.to_json()) == config
    assert TrainConfig(data=own, output=Path("run"), backbone="RN50:openai").backbone == "RN50:openai"


def test_the_source_of_a_benchmark_decides_its_backbone(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "DEFAULT", "another")
    options: dict[str, Any] = {"output": Path("out"), "shots": (1,), "seeds": (1,), "methods": ("zeroshot", "coop")}
    runs = base_to_new(BenchmarkConfig(data=("emoji-food", own, "emoji-travel"), **options))
    assert [run.train.backbone for run in runs] == ["another"] * 2 + ["emoji"] * 4
    assert {(test.key.backbone, run.name.split("-")[0]) for run in runs for test in run.tests} == {
        ("another", "another"),
        ("emoji", "emoji"),
    }
    for source, target, backbone in (("emoji-food", own, "emoji"), (own, "emoji-food", "another")):
        runs = cross_dataset(TransferConfig(source=source, targets=(target,), **options))
        assert {run.train.backbone for run in runs} == {backbone}
    named = BenchmarkConfig(data=("emoji-food", own), backbones=("a:b", "c:d"), **options)
    assert [run.train.backbone for run in base_to_new(named)] == ["a:b"] * 4 + ["c:d"] * 4


@pytest.mark.parametrize("layout", ["whole", "factors"])
def test_an_embedded_model_is_loaded_from_a_compact_file(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = open_clip.CLIP(**MODEL)
    state = {key: tensor.half() for key, tensor in model.state_dict().items()}
    weight = state.pop("token_embedding.weight")
    compact, expected = compact_embedding(layout, weight)
    preprocess = {"size": 64, "mean": [0.5] * 3, "std": [0.5] * 3}
    metadata = {"model_cfg": json.dumps(MODEL), "preprocess_cfg": json.dumps(preprocess)}
    save_file({**state, **compact}, tmp_path / "model.safetensors", metadata)
    monkeypatch.setitem(embedded.EMBEDDED, "small", EmbeddedModel(str(tmp_path / "model.safetensors"), "nothing"))
    loaded = load_embedded("small")[0].state_dict()
    assert torch.equal(loaded.pop("token_embedding.weight"), expected)
    assert all(torch.equal(loaded[key], state[key].to(loaded[key].dtype)) for key in state)
    backbone = load_backbone("small")
    assert backbone.encode(torch.zeros(2, 3, 64, 64)).rows().shape == (2, 16 + 2 * sum(backbone.layer_widths))
    assert len(backbone.layer_widths) == 7


def compact_embedding(layout: str, weight: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Return the tensors of a file in a layout, and the weight that they stand for."""
    if layout == "whole":
        return {"token_embedding.weight": weight}, weight.float()
    left, right = torch.randn(49408, 4).half(), torch.randn(4, 32).half()
    product = sum(left[:, i, None].double() * right[None, i].double() for i in range(4))
    assert isinstance(product, Tensor)
    return {"token_embedding.left": left, "token_embedding.right": right}, product.float()


def test_an_unknown_backbone_is_refused_with_the_embedded_ones() -> None:
    with pytest.raises(InputError, match="give photo, emoji, or ARCHITECTURE:TAG"):
        load_backbone("no-such-model")
