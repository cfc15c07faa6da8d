"""Calibration errors, temperatures, and that they change how sure a classifier is and never what it answers."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gopro
from gopro.clip.backbone import Backbone
from gopro.data.dataset import Sample
from gopro.data.load_dataset import load_dataset
from gopro.inference.calibrate import calibrate
from gopro.inference.calibration import CalibrationError, fit_temperature
from gopro.inference.classifier import Classifier
from gopro.inference.evaluate import evaluate_images
from gopro.inference.taylor_head import constant_head
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.training.train import train
from tests.support.methods import NAMES, TEMPLATE


def logits_of(*probabilities: float) -> torch.Tensor:
    """Return logits of two classes, [n, 2], whose softmax gives these probabilities to the first."""
    p = torch.tensor(probabilities, dtype=torch.float64)
    return torch.stack([p.log(), (1 - p).log()], dim=1)


def test_the_calibration_error_is_the_one_computed_by_hand() -> None:
    """Three answers at 90 %, of which two are right, and one at 60 %, which is right: bins 14 and 9 of 15."""
    error = CalibrationError.of(logits_of(0.9, 0.9, 0.9, 0.6), torch.tensor([0, 0, 1, 0]))
    assert error.ece == pytest.approx((3 * (90 - 200 / 3) + (100 - 60)) / 4)
    assert error.nll == pytest.approx(-(2 * math.log(0.9) + math.log(0.1) + math.log(0.6)) / 4)
    assert error.confidence == pytest.approx((3 * 90 + 60) / 4)
    assert [(round(15 * bin.low), bin.images) for bin in error.bins] == [(8, 1), (13, 3)]


def test_a_temperature_of_2_makes_probabilities_less_extreme() -> None:
    error = CalibrationError.of(logits_of(0.9), torch.tensor([0]), 2.0)
    assert error.confidence == pytest.approx(100 * 3 / (3 + 1))  # odds of 9 : 1 become 3 : 1


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_the_temperature_that_labels_were_drawn_with_is_found(temperature: float) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(4000, 6, generator=generator)
    labels = (logits / temperature).softmax(dim=1).multinomial(1, generator=generator)[:, 0]
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.1)


def test_a_few_right_answers_are_no_reason_to_be_certain() -> None:
    logits = logits_of(0.8, 0.8, 0.2, 0.2)
    temperature = fit_temperature(logits, torch.tensor([0, 0, 1, 1]))
    assert 0.8 < CalibrationError.of(logits, torch.tensor([0, 0, 1, 1]), temperature).confidence / 100 < 0.97


def test_few_images_do_little_harm_to_probabilities_that_are_right() -> None:
    """28 images of 7 easy classes, 20 times; a whole image without answer costs 7 points of ECE."""
    harm = []
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        logits = 7 * torch.randn(2028, 7, generator=generator)
        labels = logits.softmax(dim=1).multinomial(1, generator=generator)[:, 0]
        temperature = fit_temperature(logits[:28], labels[:28])
        fitted, plain = (CalibrationError.of(logits[28:], labels[28:], t) for t in (temperature, 1.0))
        harm.append(fitted.ece - plain.ece)
    assert np.mean(harm) < 3


@pytest.mark.parametrize("spec", ["zeroshot", "coop", "tip-adapter", "maple"])
def test_every_kind_of_method_is_calibrated(spec: str, tmp_path: Path, tiny: Backbone) -> None:
    config = TrainConfig(
        data="emoji-activities",
        output=tmp_path / "run",
        method=spec,
        shots=1,
        epochs=1,
        batch=64,
        workers=0,
        device="cpu",
    )
    run = train(config, backbone=tiny)
    val = load_dataset("emoji-activities").few_shot(1, 1).val
    expected = evaluate_images(run.method, val)
    assert run.calibration is not None and run.calibration.images == len(val) == 85
    assert run.calibration.accuracy == pytest.approx(expected.accuracy, abs=1e-4)
    assert run.method.temperature == run.calibration.temperature != 1
    assert expected.calibration.nll < expected.uncalibrated.nll
    images = [sample.image.open() for sample in val[:3]]
    again = gopro.Classifier(gopro.inference.classifier.load_run(tmp_path / "run", backbone=tiny).method)
    np.testing.assert_allclose(again.predict_proba(images), expected.probabilities[:3].numpy(), atol=1e-4)


def test_data_without_validation_images_leave_the_probabilities_alone(tmp_path: Path, tiny: Backbone) -> None:
    for split in ("train", "test"):
        for c, name in enumerate(("red", "blue")):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9), (200 * c, 9, 9)).save(tmp_path / "mine" / split / name / "1.png")
    config = TrainConfig(
        data=str(tmp_path / "mine"), output=tmp_path / "run", method="coop", shots=1, epochs=1, workers=0, device="cpu"
    )
    run = train(config, backbone=tiny)
    assert run.calibration is not None and run.calibration.problem == "there are no validation images"
    assert run.method.temperature == 1 and run.calibration.accuracy is None


def test_a_validation_image_that_cannot_be_read_does_not_cost_the_training(tmp_path: Path, tiny: Backbone) -> None:
    for split in ("train", "val", "test"):
        for name in ("red", "blue"):
            (tmp_path / "mine" / split / name).mkdir(parents=True)
            Image.new("RGB", (9, 9), name).save(tmp_path / "mine" / split / name / "1.png")
    (tmp_path / "mine" / "val" / "red" / "1.png").write_bytes(b"broken")
    config = TrainConfig(
        data=str(tmp_path / "mine"), output=tmp_path / "run", method="coop", shots=1, epochs=1, workers=0, device="cpu"
    )
    with pytest.warns(UserWarning, match=r"are not calibrated: .*val/red/1\.png"):
        run = train(config, backbone=tiny)
    assert run.calibration is not None and run.calibration.problem == "the validation images cannot be read"
    assert str(tmp_path) not in (tmp_path / "run" / "calibration.json").read_text()  # it may be pushed


@pytest.mark.parametrize("temperature", [0.05, 0.7, 20.0])
def test_a_temperature_changes_probabilities_and_no_answer(temperature: float, tiny: Backbone) -> None:
    plain, method = (build_method("gopro", tiny, NAMES, TEMPLATE) for _ in range(2))
    method.temperature = temperature
    images = [Image.effect_noise((40, 40), sigma).convert("RGB") for sigma in (10, 40, 90, 200)]
    expected = Classifier(plain).predict_proba(images).astype(np.float64) ** (1 / temperature)
    probabilities = Classifier(method).predict_proba(images)
    np.testing.assert_allclose(probabilities, expected / expected.sum(axis=1, keepdims=True), atol=1e-4)
    assert Classifier(method).predict(images) == Classifier(plain).predict(images)
    order = [[p.name for p in top] for top in Classifier(method).predict(images, top_k=5)]
    assert order == [[p.name for p in top] for top in Classifier(plain).predict(images, top_k=5)]


def test_other_classes_and_the_first_order_head_take_the_temperature_over(tiny: Backbone) -> None:
    method = build_method("coop", tiny, NAMES, TEMPLATE)
    method.temperature = 0.5
    assert method.for_classes(["a", "b"]).temperature == constant_head(method, ["a", "b"]).temperature == 0.5


def test_at_most_500_images_are_used_of_all_classes(tiny: Backbone) -> None:
    dataset = load_dataset("emoji-activities")
    method = build_method("zeroshot", tiny, dataset.classnames, dataset.template)
    many = tuple(replace(sample) for sample in dataset.val[:85]) * 10
    assert isinstance(many[0], Sample) and calibrate(method, many).images == 425
