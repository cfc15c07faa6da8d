"""Levels: a run on 12-bit files gives what one on the same images with 8 bits gives, wherever it is used."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gopro.clip.backbone import Backbone
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.inference.classifier import Classifier
from gopro.inference.evaluate import evaluate_images
from gopro.runs.config import TrainConfig
from gopro.runs.load_run import load_run
from gopro.runs.run import Run
from gopro.training.train import train
from tests.support.images import blotches
from tests.support.serve import probabilities, serve_in_thread

CLASSES = ("cell", "crystal")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Folders `8` and `12` with the same images; 12-bit values round to the 8-bit ones."""
    for number, folder in enumerate(CLASSES):
        for i in range(4):
            grey = np.asarray(blotches(seed=10 * number + i).convert("L"))
            for bits, samples in {"8": grey, "12": np.round(grey * (4095 / 255)).astype(np.uint16)}.items():
                (tmp_path / bits / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(samples).save(tmp_path / bits / folder / f"{i}.png")
    return tmp_path


def trained(root: Path, data: str, tiny: Backbone, levels: tuple[float, float] | None) -> Run:
    output = root / f"run-{data}-{levels is None}"
    settings = {"method": "linear-probe", "shots": 2, "workers": 0, "device": "cpu", "levels": levels}
    train(TrainConfig(data=str(root / data / "."), output=output, **settings), backbone=tiny)
    return load_run(output, backbone=tiny)


def test_a_run_uses_its_levels_on_every_image(root: Path, tiny: Backbone):
    eight, twelve = trained(root, "8", tiny, None), trained(root, "12", tiny, (0, 4095))
    assert twelve.config.levels == (0, 4095)
    images = {bits: sorted((root / bits).glob("*/*.png")) for bits in ("8", "12")}
    expected = Classifier(eight.method, eight).predict_proba(images["8"])
    classifier = Classifier(twelve.method, twelve)
    assert np.array_equal(classifier.predict_proba(images["12"]), expected)
    assert np.array_equal(classifier.for_classes(CLASSES).predict_proba(root / "12"), expected)
    assert np.array_equal(classifier.predict_proba([Image.open(image) for image in images["12"]]), expected)
    tested = [evaluate_images(run.method, run.dataset().test).probabilities.numpy() for run in (eight, twelve)]
    assert np.array_equal(*tested)
    with serve_in_thread(twelve) as server:
        response = server.predict(*(image.read_bytes() for image in images["12"]))
    np.testing.assert_allclose(probabilities(response, list(CLASSES)), expected, atol=2e-6)


def test_without_levels_twelve_bits_are_nearly_black(root: Path):
    dark = load_dataset(str(root / "12"))
    assert max(np.asarray(sample.image.open()).max() for sample in dark.train) <= 16
    bright = load_dataset(str(root / "12"), levels=(0, 4095))
    assert max(np.asarray(sample.image.open()).max() for sample in bright.train) > 180


def test_white_must_be_above_black(root: Path):
    with pytest.raises(InputError, match="levels are 5 5: give black below white, such as 0 4095"):
        load_dataset(str(root / "12"), levels=(5, 5))
    with pytest.raises(InputError, match="levels are 5 2: give black below white"):
        TrainConfig(data="x", output=root, levels=(5, 2))
    with pytest.raises(InputError, match=r"levels is \(1, 2, 3\): give 2 numbers or null"):
        TrainConfig(data="x", output=root, levels=(1, 2, 3))  # pyright: ignore[reportArgumentType]
