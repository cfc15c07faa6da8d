"""A run whose backbone's weights lie elsewhere than where it was trained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from open_clip import factory, pretrained
from PIL import Image
from safetensors.torch import load_file, save_file

import gopro
from gopro.clip.features.encode_views import ViewRequest, encode_views
from gopro.clip.features.store import FeatureStore
from gopro.data.images.image_file import ImageFile
from gopro.errors import InputError
from gopro.runs.load_run import load_run

IMAGE = {"image_size": 32, "patch_size": 8, "width": 64, "layers": 1, "head_width": 64}
TEXT = {"context_length": 40, "width": 64, "heads": 1, "layers": 1}
CONFIG = {"embed_dim": 48, "vision_cfg": IMAGE, "text_cfg": TEXT}
CLIP: dict[str, Any] = {"hf_hub": "someone/tiny/", "mean": (0.5,) * 3, "std": (0.5,) * 3}


@pytest.fixture(autouse=True)
def _architectures(monkeypatch: pytest.MonkeyPatch) -> None:
    configs = {"tiny": CONFIG, "tiny-quickgelu": {**CONFIG, "quick_gelu": True}}
    monkeypatch.setattr(factory, "_MODEL_CONFIGS", {**factory._MODEL_CONFIGS, **configs})
    for name in configs:
        monkeypatch.setitem(pretrained._PRETRAINED, name, {"own": CLIP})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    state = gopro.load_backbone("tiny:random").model.state_dict()
    state["visual.proj"] += 1  # no longer those of tiny:random
    save_file(state, tmp_path / "here.safetensors")
    return tmp_path / "here.safetensors"


@pytest.fixture
def run(weights: Path, tmp_path: Path) -> Path:
    backbone = f"tiny-quickgelu:{weights}"
    settings: dict[str, Any] = {"data": "emoji-activities", "method": "zeroshot", "device": "cpu"}
    gopro.train(gopro.TrainConfig(**settings, backbone=backbone, output=tmp_path / "run"))
    return tmp_path / "run"


@pytest.fixture
def image(tmp_path: Path) -> Path:
    Image.linear_gradient("L").resize((40, 40)).convert("RGB").save(tmp_path / "image.png")
    return tmp_path / "image.png"


def test_a_run_is_moved_to_where_its_weights_lie_elsewhere(run: Path, weights: Path, image: Path) -> None:
    before = gopro.load(run, "cpu").predict_proba(image)
    there = weights.with_name("there.safetensors")
    weights.rename(there)
    with pytest.raises(InputError, match=r"cannot be loaded: .*; if its weights lie elsewhere .* give --backbone FILE"):
        gopro.load(run, "cpu")
    # Whatever stands before the file, the activation is the one that the run was trained with.
    for place in (str(there), f"tiny-quickgelu:{there}", f"tiny:{there}", f"openai:{there}"):
        moved = gopro.load(run, "cpu", backbone=place)
        torch.testing.assert_close(moved.predict_proba(image), before)
    assert gopro.load(run, "cpu", backbone=moved.method.backbone).predict_proba(image).tolist() == before.tolist()


def test_other_weights_than_the_runs_are_refused(run: Path, weights: Path, tmp_path: Path) -> None:
    state = load_file(weights)
    state["logit_scale"] += 1
    save_file(state, tmp_path / "other.safetensors")
    for place in (tmp_path / "other.safetensors", "tiny-quickgelu:random", "emoji"):
        with pytest.raises(InputError, match=rf"was trained on other weights of .* than {place} has now \(fingerprint"):
            load_run(run, backbone=str(place))
    with pytest.raises(InputError, match=r"--backbone nowhere\.pt: no such file; give the weights of tiny-quickgelu:"):
        load_run(run, backbone="nowhere.pt")
    with pytest.raises(InputError, match="did you mean tiny"):
        load_run(run, backbone="tinny:random")


def test_the_same_weights_with_another_activation_are_refused(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"data": "emoji-activities", "method": "zeroshot", "device": "cpu"}
    gopro.train(gopro.TrainConfig(**settings, backbone="tiny-quickgelu:random", output=tmp_path / "run"))
    assert load_run(tmp_path / "run", backbone="tiny-quickgelu:random").config.backbone == "tiny-quickgelu:random"
    with pytest.raises(InputError, match="but another activation or other images than tiny-quickgelu:random"):
        load_run(tmp_path / "run", backbone="tiny:random")


def test_features_of_another_activation_are_not_taken_from_the_store(image: Path, tmp_path: Path) -> None:
    request = [ViewRequest(ImageFile(image), "eval")]
    rows = []
    for name in ("tiny-quickgelu:random", "tiny:random"):
        backbone = gopro.load_backbone(name)
        stored = encode_views(FeatureStore(backbone, tmp_path / "store"), request)[:].embedding
        fresh = encode_views(FeatureStore(backbone, None), request)[:].embedding
        torch.testing.assert_close(stored, fresh)
        rows.append(stored)
    assert not torch.equal(*rows)


def test_a_run_from_the_hub_may_have_its_weights_in_a_folder_of_ones_own(
    run: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gopro.runs.load_run.download", lambda *_: run)
    with pytest.raises(InputError, match=r"by a path, .* give your own file of these weights with --backbone FILE"):
        load_run("someone/run")
    shutil.copy(weights, weights.with_name("copy.safetensors"))
    assert load_run("someone/run", backbone=str(weights.with_name("copy.safetensors"))).hub == "someone/run"
