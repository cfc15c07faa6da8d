"""Views: the evaluation view equals open_clip's; random views have the promised distributions and are reproducible."""

from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torchvision.transforms import v2

from gopro.data.images.image_file import ImageFile
from gopro.data.images.transforms import (
    Preprocess,
    ViewName,
    draw_view,
    make_pixel_view,
    make_view,
    normalize,
    shrink_for_crops,
    stable_seed,
)
from gopro.errors import InputError
from tests.support.images import blotches

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
NORMALISED = Preprocess(32, MEAN, STD)
PLAIN = Preprocess(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
RANDOM_VIEWS: tuple[ViewName, ...] = ("base", "moco", "augmix", "augmix1")


def draw_many(
    name: ViewName, count: int, image: Image.Image, preprocess: Preprocess = PLAIN, first: int = 0
) -> torch.Tensor:
    view = make_view(name, preprocess)
    return torch.stack([draw_view(view, image, first + i) for i in range(count)])


def test_8_bit_views_are_normalised_together_to_the_same_bits():
    image = blotches((50, 40))
    pixels = torch.stack([draw_view(make_pixel_view("moco", NORMALISED), image, key) for key in range(6)])
    steps = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(MEAN), list(STD))])
    assert pixels.dtype == torch.uint8
    together = normalize(pixels.unflatten(0, (2, 3)), NORMALISED)
    assert torch.equal(together.flatten(0, 1), torch.stack([steps(view) for view in pixels]))
    assert torch.equal(together[1, 2], draw_view(make_view("moco", NORMALISED), image, 5))


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (224, 224), (100, 80), (61, 400), (1000, 31)])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_evaluation_view_equals_open_clip(size: tuple[int, int], mode: str, interpolation: str):
    config = PreprocessCfg(size=64, mean=MEAN, std=STD, interpolation=interpolation, resize_mode=mode)
    expected = image_transform_v2(config, is_train=False)(blotches(size))  # pyright: ignore[reportCallIssue]
    view = make_view("eval", Preprocess(64, MEAN, STD, interpolation, mode))(blotches(size))
    torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)


def test_evaluation_view_of_a_photograph_equals_open_clip(shared: Path):
    path = shared / "datasets" / "caltech-101" / "101_ObjectCategories" / "okapi" / "image_0001.jpg"
    config = PreprocessCfg(size=224, mean=MEAN, std=STD)
    expected = image_transform_v2(config, is_train=False)(Image.open(path))  # pyright: ignore[reportCallIssue]
    view = make_view("eval", Preprocess(224, MEAN, STD))(ImageFile(path).open())
    torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)


def test_unknown_modes_and_views_are_refused():
    with pytest.raises(InputError, match="resize_mode 'longest'"):
        Preprocess(32, MEAN, STD, resize_mode="longest")
    with pytest.raises(InputError, match="interpolation 'nearest'"):
        Preprocess(32, MEAN, STD, interpolation="nearest")
    with pytest.raises(InputError, match="view 'mocov2': choose one of eval, base, moco, augmix, augmix1"):
        make_view("mocov2", NORMALISED)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["eval", *RANDOM_VIEWS])
@pytest.mark.parametrize("size", [(90, 60), (1, 1), (3, 500), (700, 500)])
def test_view_is_a_normalised_8_bit_image(name: ViewName, size: tuple[int, int]):
    plain = draw_view(make_view(name, PLAIN), blotches(size), 7)
    assert plain.shape == (3, 32, 32) and plain.dtype == torch.float32
    levels = plain * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert plain.min() >= 0 and plain.max() <= 1
    normalised = draw_view(make_view(name, NORMALISED), blotches(size), 7)
    expected = (plain - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(normalised, expected, rtol=0, atol=1e-5)


@settings(max_examples=25)
@given(name=st.sampled_from(RANDOM_VIEWS), key=st.integers(0, 2**40), between=st.integers(0, 5))
def test_a_draw_depends_on_its_key_alone(name: ViewName, key: int, between: int):
    view = make_view(name, NORMALISED)
    first = draw_view(view, blotches(), 1, key)
    state = torch.get_rng_state()
    torch.rand(between)
    np.random.seed(between)
    torch.set_rng_state(state)
    assert torch.equal(draw_view(make_view(name, NORMALISED), blotches(), 1, key), first)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn from the global generator
    assert not torch.equal(draw_view(view, blotches(), 1, key + 1), first)


def test_seeds_are_the_same_on_every_machine():
    assert stable_seed(1, 2, "base") == 7254615617669196297
    seeds = {stable_seed(a, b, c) for a in range(9) for b in range(9) for c in RANDOM_VIEWS}
    assert len(seeds) == 9 * 9 * len(RANDOM_VIEWS) and all(0 <= seed < 2**63 for seed in seeds)


def test_base_view_is_a_crop_flipped_half_the_time():
    ramp = np.broadcast_to(np.linspace(0, 255, 128, dtype=np.uint8)[None, :, None], (128, 128, 3))
    views = draw_many("base", 300, Image.fromarray(np.ascontiguousarray(ramp)))
    slope = views[..., -1].mean((1, 2)) - views[..., 0].mean((1, 2))  # share of the width shown, negative if flipped
    assert 0.4 < (slope < 0).float().mean() < 0.6
    width = slope.abs()
    assert width.min() > 0.2 and width.max() <= 1.0  # sides are 0.24 to 1.15 times the root of the share of the area
    assert 0.6 < width.mean() < 0.8  # the mean of sqrt(U(0.08, 1)) is 0.71
    assert views.std(dim=(2, 3)).max() < 0.3 and (views[:, 0] == views[:, 2]).all()  # colours are left alone


def test_moco_view_jitters_greys_and_blurs_at_its_rates():
    views = draw_many("moco", 400, blotches((64, 64), seed=3))
    grey = ((views[:, 0] == views[:, 1]) & (views[:, 1] == views[:, 2])).all((1, 2))
    assert 0.14 < grey.float().mean() < 0.26  # p = 0.2; three standard deviations of 400 draws
    flat = Image.new("RGB", (64, 64), (180, 90, 60))
    untouched = torch.tensor([180, 90, 60]).view(3, 1, 1) / 255
    flat_views = draw_many("moco", 400, flat)
    unchanged = ((flat_views - untouched).abs() < 1e-6).all((1, 2)).all(1).float().mean()
    assert 0.10 < unchanged < 0.22  # neither jittered (0.2) nor grey (0.8): 0.16
    brightness = flat_views.mean((1, 2, 3))
    assert brightness.min() < 0.35 and brightness.max() > 0.5

    edge = Image.fromarray(np.repeat(np.repeat(np.array([[0, 255]], np.uint8), 224, 0), 112, 1)).convert("RGB")
    large = Preprocess(224, (0.0,) * 3, (1.0,) * 3)  # pyright: ignore[reportArgumentType]
    soft = [((v > 0.02) & (v < v.max() - 0.02)).float().sum(-1).max() for v in draw_many("moco", 12, edge, large)]
    assert max(soft) > 4  # an edge two columns wide is blurred over more


@pytest.mark.parametrize(("name", "change"), [("augmix", 0.005), ("augmix1", 0.002)])
def test_augmix_views_mix_the_base_crop_with_distortions_of_it(name: ViewName, change: float):
    base = draw_many("base", 60, blotches())
    distance = (base - draw_many(name, 60, blotches())).abs().mean((1, 2, 3))
    assert (distance < 0.35).all()  # the same key gives the same crop, and AugMix comes after it
    assert (distance > change).float().mean() > 0.8
    other_crops = (base - draw_many("base", 60, blotches(), first=99)).abs().mean((1, 2, 3))
    assert distance.mean() < 0.7 * other_crops.mean()


def test_the_released_augmix_view_is_the_milder_one():
    base, augmix, released = (draw_many(name, 60, blotches()) for name in ("base", "augmix", "augmix1"))
    assert (released - base).abs().mean() < 0.8 * (augmix - base).abs().mean()


def test_shrinking_leaves_enough_for_every_crop_and_is_idempotent():
    for size in ((3000, 2000), (257, 1000), (255, 1000), (256, 256), (40, 40), (511, 900), (513, 5000)):
        once = shrink_for_crops(blotches(size), 32)
        assert min(once.size) >= min(min(size), 4 * 32)
        assert shrink_for_crops(once, 32) is once
        assert max(once.size) / min(once.size) == pytest.approx(max(size) / min(size), rel=0.02)


def test_random_views_show_at_least_the_share_that_crop_asks_for():
    half_black = Image.new("RGB", (64, 64), "white")
    half_black.paste("black", (0, 0, 32, 64))
    for name in RANDOM_VIEWS:
        small, large = (
            [draw_view(make_view(name, NORMALISED, crop), half_black, i).amin().item() for i in range(40)]
            for crop in (0.08, 0.9)
        )
        # Normalised, black is below 0: a small crop may be all white, one that shows 90 % cannot.
        assert max(small) > 0.5 > max(large)
    assert torch.equal(make_view("eval", NORMALISED, 0.9)(half_black), make_view("eval", NORMALISED)(half_black))
    for crop in (0.0, 1.5):
        with pytest.raises(InputError, match=f"crop is {crop}"):
            make_view("base", NORMALISED, crop)
