"""Views: the evaluation view is open_clip's, the random ones are reproducible bit by bit, and batches carry them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from gopro.data.dataset import Sample
from gopro.data.decoded_image import DecodedImage, load_into_memory
from gopro.data.image_file import ImageFile
from gopro.data.load_dataset import load_dataset
from gopro.data.loader import Batch, EpochBatches, ImageViews, ViewSettings, eval_batches, train_batches
from gopro.data.transforms import Preprocess, View, ViewName, draw_view, make_view, shrink_for_crops, stable_seed
from gopro.errors import InputError

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
SMALL = Preprocess(32, MEAN, STD)
PLAIN = Preprocess(32, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
TRIPLE: tuple[ViewName, ...] = ("base", "moco", "augmix")


def image(size: tuple[int, int] = (90, 60), seed: int = 0) -> Image.Image:
    """Coloured blotches with every level between dark and bright."""
    rng = np.random.default_rng(seed)
    blotches = Image.fromarray(rng.integers(20, 236, (6, 9, 3), dtype=np.uint8))
    return blotches.resize(size, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Blotches:
    """An image drawn from its seed."""

    seed: int
    size: tuple[int, int] = (90, 60)

    @property
    def name(self) -> str:
        return f"blotches {self.seed}"

    def open(self) -> Image.Image:
        return image(self.size, self.seed)

    def digest(self) -> str:
        return f"{self.seed}/{self.size}"


SAMPLES = tuple(Sample(Blotches(i), i % 3) for i in range(9))


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (224, 224), (100, 80), (61, 400), (1000, 31)])
@pytest.mark.parametrize("mode", ["shortest", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_evaluation_view_is_open_clip_s(size: tuple[int, int], mode: str, interpolation: str):
    config = PreprocessCfg(size=64, mean=MEAN, std=STD, interpolation=interpolation, resize_mode=mode)
    expected = image_transform_v2(config, is_train=False)(image(size))  # pyright: ignore[reportCallIssue]
    view = make_view("eval", Preprocess(64, MEAN, STD, interpolation, mode))(image(size))
    torch.testing.assert_close(view, expected, rtol=0, atol=1e-6)


def test_the_evaluation_view_of_a_real_image_is_open_clip_s(shared: Path):
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
    with pytest.raises(InputError, match="view 'mocov2': choose one of eval, base, moco, augmix"):
        make_view("mocov2", SMALL)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", ["eval", *TRIPLE])
@pytest.mark.parametrize("size", [(90, 60), (1, 1), (3, 500), (700, 500)])
def test_a_view_is_an_8_bit_image_normalised(name: ViewName, size: tuple[int, int]):
    plain = draw_view(make_view(name, PLAIN), image(size), 7)
    assert plain.shape == (3, 32, 32) and plain.dtype == torch.float32
    levels = plain * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    assert plain.min() >= 0 and plain.max() <= 1
    normalised = draw_view(make_view(name, SMALL), image(size), 7)
    expected = (plain - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(normalised, expected, rtol=0, atol=1e-5)


@settings(max_examples=25)
@given(name=st.sampled_from(TRIPLE), key=st.integers(0, 2**40), between=st.integers(0, 5))
def test_a_draw_depends_on_its_key_alone(name: ViewName, key: int, between: int):
    view = make_view(name, SMALL)
    first = draw_view(view, image(), 1, key)
    state = torch.get_rng_state()
    torch.rand(between)
    np.random.seed(between)
    torch.set_rng_state(state)
    assert torch.equal(draw_view(make_view(name, SMALL), image(), 1, key), first)
    assert torch.equal(torch.get_rng_state(), state)  # nothing is drawn from the global generator
    assert not torch.equal(draw_view(view, image(), 1, key + 1), first)


def test_seeds_are_the_same_on_every_machine():
    assert stable_seed(1, 2, "base") == 7254615617669196297
    seeds = {stable_seed(a, b, c) for a in range(9) for b in range(9) for c in TRIPLE}
    assert len(seeds) == 243 and all(0 <= seed < 2**63 for seed in seeds)


def many(name: ViewName, count: int, of: Image.Image, preprocess: Preprocess = PLAIN) -> torch.Tensor:
    view = make_view(name, preprocess)
    return torch.stack([draw_view(view, of, i) for i in range(count)])


def test_base_views_are_crops_of_the_image_flipped_half_the_time():
    ramp = np.broadcast_to(np.linspace(0, 255, 128, dtype=np.uint8)[None, :, None], (128, 128, 3))
    views = many("base", 300, Image.fromarray(np.ascontiguousarray(ramp)))
    slope = views[..., -1].mean((1, 2)) - views[..., 0].mean((1, 2))  # the share of the width, negative if flipped
    assert 0.4 < (slope < 0).float().mean() < 0.6
    width = slope.abs()
    assert width.min() > 0.2 and width.max() <= 1.0  # sides of 0.24 to 1.15 times the root of the area's share
    assert 0.6 < width.mean() < 0.8  # the mean of sqrt(U(0.08, 1)) is 0.71
    assert views.std(dim=(2, 3)).max() < 0.3 and (views[:, 0] == views[:, 2]).all()  # no colours are touched


def test_moco_views_jitter_grey_and_blur_at_their_rates():
    colourful = image((64, 64), seed=3)
    views = many("moco", 400, colourful)
    grey = ((views[:, 0] == views[:, 1]) & (views[:, 1] == views[:, 2])).all((1, 2))
    assert 0.14 < grey.float().mean() < 0.26  # p = 0.2; three standard deviations of 400 draws
    flat = Image.new("RGB", (64, 64), (180, 90, 60))
    untouched = torch.tensor([180, 90, 60]).view(3, 1, 1) / 255
    flat_views = many("moco", 400, flat)
    kept = ((flat_views - untouched).abs() < 1e-6).all((1, 2)).all(1).float().mean()
    assert 0.10 < kept < 0.22  # neither jittered (0.2) nor grey (0.8): 0.16
    bright = flat_views.mean((1, 2, 3))
    assert bright.min() < 0.35 and bright.max() > 0.5

    edge = Image.fromarray(np.repeat(np.repeat(np.array([[0, 255]], np.uint8), 224, 0), 112, 1)).convert("RGB")
    wide = Preprocess(224, (0.0,) * 3, (1.0,) * 3)  # pyright: ignore[reportArgumentType]
    soft = [((v > 0.02) & (v < v.max() - 0.02)).float().sum(-1).max() for v in many("moco", 12, edge, wide)]
    assert max(soft) > 4  # an edge two columns wide is blurred over more


def test_augmix_views_mix_the_base_crop_with_distortions_of_it():
    distance = torch.tensor(
        [(draw_view(base, image(), i) - draw_view(augmix, image(), i)).abs().mean() for i in range(60)]
    )
    assert (distance < 0.35).all()  # the same key crops alike: AugMix comes after it
    assert (distance > 0.005).float().mean() > 0.8
    other = torch.tensor(
        [(draw_view(base, image(), i) - draw_view(base, image(), i + 99)).abs().mean() for i in range(60)]
    )
    assert distance.mean() < 0.7 * other.mean()


def test_reducing_keeps_enough_for_every_crop_and_is_done_once():
    for size in ((3000, 2000), (257, 1000), (255, 1000), (256, 256), (40, 40), (511, 900), (513, 5000)):
        once = shrink_for_crops(image(size), 32)
        assert min(once.size) >= min(min(size), 4 * 32)
        assert shrink_for_crops(once, 32) is once
        assert max(once.size) / min(once.size) == pytest.approx(max(size) / min(size), rel=0.02)


def collected(loader) -> list[Batch]:
    return list(loader)


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def test_batches_are_the_same_bits_with_0_1_and_2_workers():
    expected = collected(train_batches(SAMPLES, TRIPLE, ViewSettings(SMALL), batch_size=4, seed=1, epoch=2))
    for workers in (1, 2):
        torch.rand(workers)  # nothing to it
        loader = train_batches(SAMPLES, TRIPLE, ViewSettings(SMALL, workers=workers), batch_size=4, seed=1, epoch=2)
        assert same(collected(loader), expected)
        evaluated = collected(eval_batches(SAMPLES, SMALL, batch_size=4, workers=workers))
        assert same(evaluated, collected(eval_batches(SAMPLES, SMALL, batch_size=4)))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_goes_on_to_other_epochs(workers: int):
    loader = train_batches(SAMPLES, TRIPLE, ViewSettings(SMALL, workers=workers), batch_size=4, seed=1)
    seen = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        seen.append(collected(loader))
        assert same(
            seen[-1], collected(train_batches(SAMPLES, TRIPLE, ViewSettings(SMALL), batch_size=4, seed=1, epoch=epoch))
        )
    assert same(seen[0], seen[2]) and not same(seen[0], seen[1])


def by_index(batches: list[Batch]) -> dict[int, torch.Tensor]:
    return {int(i): batch.views[:, b] for batch in batches for b, i in enumerate(batch.indices)}


def test_batches_carry_views_labels_and_indices():
    batches = collected(train_batches(SAMPLES[:8], TRIPLE, ViewSettings(SMALL), batch_size=4, seed=1))
    assert [b.views.shape for b in batches] == [(3, 4, 3, 32, 32)] * 2
    assert sorted(i for b in batches for i in b.indices.tolist()) == list(range(8))
    for batch in batches:
        assert batch.views.dtype == torch.float32 and batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [SAMPLES[i].label for i in batch.indices.tolist()]
    for index, views in by_index(batches).items():
        for name, view in zip(TRIPLE, views, strict=True):
            assert torch.equal(view, draw_view(make_view(name, SMALL), SAMPLES[index].image.open(), 1, 0, index, name))


def test_a_image_s_views_do_not_depend_on_batches_but_on_epoch_seed_and_index():
    def drawn(batch_size: int = 4, seed: int = 1, epoch: int = 0) -> dict[int, torch.Tensor]:
        return by_index(collected(train_batches(SAMPLES[:8], TRIPLE, ViewSettings(SMALL), batch_size, seed, epoch)))

    first = drawn()
    assert all(torch.equal(first[i], view) for i, view in drawn(batch_size=2).items())
    for other in (drawn(seed=2), drawn(epoch=1)):
        assert not any(torch.equal(first[i], view) for i, view in other.items())
    twins = (Sample(Blotches(0), 0),) * 4  # the same image four times
    views = by_index(collected(train_batches(twins, ("base",), ViewSettings(SMALL), batch_size=4, seed=1)))
    assert len({views[i].numpy().tobytes() for i in range(4)}) == 4


def test_evaluation_batches_are_all_samples_in_order():
    batches = collected(eval_batches(SAMPLES, SMALL, batch_size=4))
    assert [b.indices.tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    view = make_view("eval", SMALL)
    assert all(
        torch.equal(b.views[0, j], view(SAMPLES[i].image.open())) for b in batches for j, i in enumerate(b.indices)
    )
    assert collected(eval_batches((), SMALL, batch_size=4)) == []


@given(count=st.integers(1, 60), size=st.integers(1, 12), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_an_epoch_has_every_image_once_but_for_a_single_last(count: int, size: int, seed: int, epoch: int):
    assume(count > 1 or size == 1)  # refused: see below
    batches = list(EpochBatches(count, size, seed, epoch))
    assert len(batches) == len(EpochBatches(count, size, seed, epoch))
    keys = [key for batch in batches for key in batch]
    left_out = 1 if size > 1 and count % size == 1 else 0
    assert len(set(keys)) == len(keys) == count - left_out
    assert all(e == epoch and 0 <= i < count for e, i in keys)
    assert all(len(batch) == size for batch in batches[:-1])
    assert size == 1 or all(len(batch) >= 2 for batch in batches)


def test_the_image_left_out_changes():
    left = {i for e in range(20) for i in set(range(9)) - {i for b in EpochBatches(9, 4, 1, e) for _, i in b}}
    assert len(left) > 4


def test_images_in_memory_give_the_same_bits_and_are_opened_once():
    samples = tuple(Sample(Blotches(i, (300, 280)), 0) for i in range(5))  # larger than 4 x 32, so reduced
    expected = collected(train_batches(samples, TRIPLE, ViewSettings(SMALL), batch_size=5, seed=1))
    kept_bytes = 4 * 150 * 140
    for budget, kept in ((0, 0), (kept_bytes * 2 + 5, 2), (2**30, 5)):
        held = load_into_memory(samples, SMALL, budget)
        assert [s.image.name for s in held] == [s.image.name for s in samples]
        assert sum(isinstance(s.image, DecodedImage) for s in held) == kept
        assert same(collected(train_batches(held, TRIPLE, ViewSettings(SMALL), batch_size=5, seed=1)), expected)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_image_that_cannot_be_read_is_one_line_from_any_process(tmp_path: Path, workers: int):
    (tmp_path / "broken.jpg").write_text("no image")
    samples = (*SAMPLES[:3], Sample(ImageFile(tmp_path / "broken.jpg"), 0))
    for loader in (
        train_batches(samples, ("base",), ViewSettings(SMALL, workers=workers), batch_size=4, seed=1),
        eval_batches(samples, SMALL, batch_size=2, workers=workers),
    ):
        with pytest.raises(InputError) as caught:
            collected(loader)
        assert str(caught.value).startswith((tmp_path / "broken.jpg").as_posix()) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="broken"):
        ImageViews(samples, ("base",), ViewSettings(SMALL))[0, 3]


def test_batches_that_cannot_be():
    with pytest.raises(InputError, match="1 training images"):
        train_batches(SAMPLES[:1], TRIPLE, ViewSettings(SMALL), batch_size=4, seed=1)
    assert len(collected(train_batches(SAMPLES[:1], TRIPLE, ViewSettings(SMALL), batch_size=1, seed=1))) == 1
    for size in (0, -1):
        with pytest.raises(InputError, match="batch size"):
            train_batches(SAMPLES, TRIPLE, ViewSettings(SMALL), batch_size=size, seed=1)
        with pytest.raises(InputError, match="batch size"):
            eval_batches(SAMPLES, SMALL, batch_size=size)


def test_iterating_draws_nothing_from_the_global_generator():
    state = torch.get_rng_state()
    collected(train_batches(SAMPLES, TRIPLE, ViewSettings(SMALL), batch_size=4, seed=1))
    collected(eval_batches(SAMPLES, SMALL, batch_size=4))
    assert torch.equal(torch.get_rng_state(), state)


def test_real_images_are_the_same_bits_in_workers(shared: Path):
    dataset = load_dataset("caltech101", shared / "datasets").half("base").few_shot(1, seed=1)
    wide = Preprocess(224, MEAN, STD)
    samples = dataset.train[:6]
    expected = collected(train_batches(samples, TRIPLE, ViewSettings(wide), batch_size=3, seed=1))
    assert same(
        collected(train_batches(samples, TRIPLE, ViewSettings(wide, workers=2), batch_size=3, seed=1)), expected
    )
    views = torch.cat([b.views for b in expected], dim=1)
    assert abs(views.mean()) < 1 and 0.4 < views.std() < 2  # normalised for the backbone: near 0 and 1


def test_random_views_show_as_much_as_they_are_told_to() -> None:
    """Of an image whose left half is black, no view that shows nearly all of it can be all white."""
    image = Image.new("RGB", (64, 64), "white")
    image.paste("black", (0, 0, 32, 64))
    for name in ("base", "moco", "augmix"):
        small, large = (
            [draw_view(make_view(name, SMALL, crop), image, i).amin().item() for i in range(40)] for crop in (0.08, 0.9)
        )
        assert max(small) > 0.5 > max(large)  # normalised: black is below 0
    assert same_view(make_view("eval", SMALL, 0.9), make_view("eval", SMALL), image)
    for crop in (0.0, 1.5):
        with pytest.raises(InputError, match=f"crop is {crop}"):
            make_view("base", SMALL, crop)


def same_view(one: View, other: View, image: Image.Image) -> bool:
    return torch.equal(one(image), other(image))
