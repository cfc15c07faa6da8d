"""The embedded CLIP for photographs: zero-shot on the packaged photographs, and a run of it in all that uses runs."""

from __future__ import annotations

from pathlib import Path

import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import gopro
from gopro.clip.backbone import Backbone, load_backbone
from gopro.clip.features.encode_views import ViewRequest, encode_views
from gopro.clip.features.store import FeatureStore
from gopro.data.dataset import Dataset
from gopro.data.embedded.photos import FOLDER, photos_dataset
from gopro.data.images.image_file import ImageFile
from gopro.data.images.transforms import draw_view, make_view
from gopro.inference.evaluate import encode_samples, evaluate
from gopro.inference.export import ExportSettings, export_run
from gopro.inference.taylor_head import TaylorHead
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.runs.run import LEARNED
from gopro.training.train import train
from tests.support.serve import serve_in_thread

NONSENSE = ("blicket", "zorfle", "wugma", "tindap", "quelb", "snorvit", "ploonk", "framtice", "doxil", "yempra")
NEW = ("kangaroo", "deer", "hare", "fox")


@pytest.fixture(scope="module")
def photo() -> Backbone:
    return load_backbone("photo")


@pytest.fixture(scope="module")
def photos() -> Dataset:
    return photos_dataset()


def config(folder: Path, **changes: object) -> TrainConfig:
    settings = {"shots": 1, "epochs": 2, "bank": 2, "classes": "base", "workers": 0, "device": "cpu"} | changes
    return TrainConfig(data="photos", output=folder, **settings)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def run(photo: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of GOPro on one image of each base class."""
    return train(config(tmp_path_factory.mktemp("photo") / "run"), backbone=photo).folder


@pytest.fixture
def images() -> list[Path]:
    return [next((FOLDER / "test" / name).iterdir()) for name in ("kangaroo", "lobster", "rooster", "umbrella")]


@pytest.mark.slow
def test_zero_shot_knows_the_photographs_with_or_without_a_template(photo: Backbone, photos: Dataset) -> None:
    accuracies = []
    for template in ("a photo of a {}.", "{}"):
        names = build_method("zeroshot", photo, photos.classnames, template)
        samples = encode_samples(names, photos.test)
        real = evaluate(names, samples)
        nonsense = evaluate(build_method("zeroshot", photo, NONSENSE, template), samples)
        confidence, of_nonsense = (e.probabilities.amax(dim=-1).mean().item() for e in (real, nonsense))
        assert of_nonsense < confidence - 0.25, "names that mean nothing are as good as the right ones"
        accuracies.append(real.accuracy)
    template, bare = accuracies
    assert template > 70 and abs(template - bare) < 3


def test_stored_features_are_those_of_the_tower(photo: Backbone, photos: Dataset, tmp_path: Path) -> None:
    requests = [
        ViewRequest(sample.image, view, draw=0) for sample in photos.train[::100] for view in ("eval", "base", "augmix")
    ]
    first = encode_views(FeatureStore(photo, tmp_path), requests)
    for i, request in enumerate(requests):
        view = make_view(request.view, photo.preprocess)
        drawn = draw_view(view, request.image.open(), request.image.digest(), request.draw, request.view)
        direct = photo.encode(drawn[None])[0]
        for name in ("embedding", "mean", "std"):
            stored = getattr(first[i : i + 1][0], name)
            torch.testing.assert_close(stored, getattr(direct, name), rtol=2**-8, atol=1e-4)
    again = encode_views(FeatureStore(photo, tmp_path), requests)
    assert torch.equal(first[:].rows(), again[:].rows())


def test_a_run_is_trained_on_the_view_bank_without_encoding_again(
    run: Path, photo: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo, "encode", None)
    again = train(config(tmp_path / "run"), backbone=photo)
    assert (again.folder / LEARNED).read_bytes() == (run / LEARNED).read_bytes()


def test_a_first_order_head_agrees_with_the_exact_one(run: Path, images: list[Path]) -> None:
    exact = gopro.load(run, "cpu").for_classes(NEW)
    fast = exact.first_order()
    assert isinstance(fast.method, TaylorHead) and fast.method.agreement.top1 > 90
    assert abs(fast.predict_proba(images) - exact.predict_proba(images)).max() < 0.1


@pytest.mark.slow
@pytest.mark.no_cover  # see tests/inference/export/test_export.py
def test_a_run_is_exported_to_one_file_of_onnx(run: Path, images: list[Path], tmp_path: Path) -> None:
    classifier = gopro.load(run, "cpu").for_classes(NEW)
    model = export_run(run, NEW, ExportSettings(output=tmp_path / "model.onnx", images=images[0].parent))
    assert model.comparison.agreement.top1 == 100
    session = onnxruntime.InferenceSession(model.path)
    view = make_view("eval", classifier.method.backbone.preprocess)
    views = torch.stack([view(ImageFile(path).open()) for path in images])
    [probabilities] = session.run(["probabilities"], {"images": views.numpy()})
    assert abs(probabilities - classifier.predict_proba(images)).max() < 1e-3


def test_a_run_is_served(run: Path, images: list[Path]) -> None:
    with serve_in_thread(load_run(run)) as server:
        answers = server.predict(*(path.read_bytes() for path in images), classes=NEW, top_k=1).json()
        assert len(server.get("/samples").json()) == 12
    found = [answer["heads"]["exact"]["predictions"][0]["name"] for answer in answers["results"]]
    assert found == gopro.load(run, "cpu").for_classes(NEW).predict(images)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    one, two, still = (
        load_file(train(config(tmp_path / str(lr + devices), method="coop", lr=lr), devices=devices).folder / LEARNED)
        for lr, devices in ((0.1, 1), (0.1, 2), (1e-9, 1))
    )
    for name, tensor in one.items():
        moved = (tensor - still[name]).abs().max().item()
        assert moved > 1e-3
        torch.testing.assert_close(two[name], tensor, rtol=0, atol=0.01 * moved)
