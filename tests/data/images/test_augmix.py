"""AugMix: its draws, and its operations against PIL's."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from gopro.data.images.augmix import OPERATIONS, AugMix
from gopro.data.images.transforms import Preprocess, draw_view, make_view
from tests.support.images import blotches

WHITE = Image.new("RGB", (16, 16), "white")
BLACK = Image.new("RGB", (16, 16))


@pytest.fixture
def levels(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Replace all operations by one that makes the image black, and return the list of the levels it is called with."""
    drawn: list[float] = []

    def blacken(image: Image.Image, level: float) -> Image.Image:
        drawn.append(level)
        return Image.new("RGB", image.size)

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, blacken)
    return drawn


@pytest.mark.parametrize("severity", [1, 3])
def test_levels_lengths_and_weights_have_their_distributions(severity: int, levels: list[float]) -> None:
    kept, counts = [], []
    for _ in range(400):
        before = len(levels)
        kept.append(np.asarray(AugMix(severity)(WHITE)).mean() / 255)
        counts.append(len(levels) - before)
    assert 0.1 <= min(levels) < 0.13 and severity - 0.05 < max(levels) <= severity
    assert np.mean(levels) == pytest.approx((0.1 + severity) / 2, rel=0.05)
    assert set(counts) == set(range(3, 10)) and np.mean(counts) == pytest.approx(6, abs=0.25)
    assert np.mean(kept) == pytest.approx(0.5, abs=0.05) and np.std(kept) == pytest.approx(12**-0.5, abs=0.03)


def test_the_released_view_draws_levels_up_to_1(levels: list[float]) -> None:
    preprocess = Preprocess(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    for key in range(60):
        draw_view(make_view("augmix1", preprocess), blotches(), key)
    assert min(levels) >= 0.1 and 0.9 < max(levels) <= 1


def test_chains_are_weighted_from_the_simplex(monkeypatch: pytest.MonkeyPatch) -> None:
    """With operations that are black or leave the image, the weights of those that leave it add up."""
    for i, name in enumerate(OPERATIONS):
        monkeypatch.setitem(OPERATIONS, name, lambda image, _, i=i: image if i % 3 else BLACK)
    values = torch.tensor([np.asarray(AugMix(1)(WHITE)).mean() / 255 for _ in range(400)])
    # A chain stays white with probability (2/3 + (2/3)² + (2/3)³) / 3 = 0.469, whatever its weight.
    assert values.mean().item() == pytest.approx(0.5 + 0.5 * 0.469, abs=0.04)
    assert 0.05 < ((values > 0.02) & (values < 0.98)).float().mean() < 0.95


def test_an_image_that_no_operation_changes_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda image, _: image)
    image = blotches((224, 224))
    assert (np.asarray(AugMix(1)(image)) == np.asarray(image)).all()


def test_operations_at_a_level_equal_pils() -> None:
    """Values by hand for 224 pixels: at level 1, 3 degrees, 7 of 7.47 pixels, a slope of 0.03, threshold 231."""
    image, bilinear = blotches((224, 224)), Image.Resampling.BILINEAR

    def warp(*matrix: float) -> Image.Image:
        return image.transform(image.size, Image.Transform.AFFINE, matrix, resample=bilinear)

    expected = {
        "autocontrast": [ImageOps.autocontrast(image)],
        "equalize": [ImageOps.equalize(image)],
        "posterize": [ImageOps.posterize(image, 4)],
        "rotate": [image.rotate(angle, resample=bilinear) for angle in (3, -3)],
        "solarize": [ImageOps.solarize(image, 231)],
        "shear x": [warp(1, slope, 0, 0, 1, 0) for slope in (0.03, -0.03)],
        "shear y": [warp(1, 0, 0, slope, 1, 0) for slope in (0.03, -0.03)],
        "shift x": [warp(1, 0, shift, 0, 1, 0) for shift in (7, -7)],
        "shift y": [warp(1, 0, 0, 0, 1, shift) for shift in (7, -7)],
    }
    assert set(expected) == set(OPERATIONS)
    for name, results in expected.items():
        drawn = {OPERATIONS[name](image, 1.0).tobytes() for _ in range(30)}
        assert drawn == {result.tobytes() for result in results}, name


def test_posterize_and_solarize_grow_with_the_level() -> None:
    image = blotches((32, 32))
    assert OPERATIONS["posterize"](image, 3.0).tobytes() == ImageOps.posterize(image, 3).tobytes()
    assert OPERATIONS["solarize"](image, 3.0).tobytes() == ImageOps.solarize(image, 180).tobytes()
