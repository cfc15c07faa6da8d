"""Batches of views: the same bits whatever the number of workers, in an order set by (seed, epoch) alone."""

import os
from pathlib import Path
from threading import Barrier

import open_clip
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from gopro.data.dataset import Sample
from gopro.data.images.decoded_image import DecodedImage, load_into_memory
from gopro.data.images.image_file import ImageFile
from gopro.data.images.loader import (
    Batch,
    EpochBatches,
    ImageLoader,
    ImageViews,
    ViewSettings,
    eval_batches,
    train_batches,
)
from gopro.data.images.transforms import Preprocess, ViewName, draw_view, make_view
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from tests.support.images import Blotches

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
SMALL = Preprocess(32, MEAN, STD)
SETTINGS = ViewSettings(SMALL)
VIEWS: tuple[ViewName, ...] = ("base", "moco", "augmix")
SAMPLES = tuple(Sample(Blotches(i), i % 3) for i in range(9))


def collect(loader: ImageLoader) -> list[Batch]:
    return list(loader)


def refusal(loader: ImageLoader) -> str:
    try:
        collect(loader)
    except InputError as error:  # pytest.raises would keep the workers alive until they are garbage-collected
        return str(error)
    raise AssertionError("nothing was refused")


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a, b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True)
    )


def by_index(batches: list[Batch]) -> dict[int, torch.Tensor]:
    """Map the index of each sample to its views [views, 3, size, size]."""
    return {int(i): batch.views[:, b] for batch in batches for b, i in enumerate(batch.indices)}


def test_batches_are_the_same_bits_with_any_number_of_workers():
    expected = collect(train_batches(SAMPLES, VIEWS, SETTINGS, EpochBatches(len(SAMPLES), 4, 1, 2)))
    for workers in (1, 2):
        torch.rand(workers)  # other draws must not matter
        settings = ViewSettings(SMALL, workers=workers)
        assert same(collect(train_batches(SAMPLES, VIEWS, settings, EpochBatches(len(SAMPLES), 4, 1, 2))), expected)
        evaluated = collect(eval_batches(SAMPLES, SMALL, batch_size=4, workers=workers))
        assert same(evaluated, collect(eval_batches(SAMPLES, SMALL, batch_size=4)))


@pytest.mark.parametrize("workers", [0, 2])
def test_set_epoch_moves_a_loader_to_another_epoch(workers: int):
    loader = train_batches(SAMPLES, VIEWS, ViewSettings(SMALL, workers=workers), EpochBatches(len(SAMPLES), 4, 1))
    epochs = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        epochs.append(collect(loader))
        fresh = train_batches(SAMPLES, VIEWS, SETTINGS, EpochBatches(len(SAMPLES), 4, 1, epoch))
        assert same(epochs[-1], collect(fresh))
    assert same(epochs[0], epochs[2]) and not same(epochs[0], epochs[1])


def test_batches_carry_views_labels_and_indices():
    batches = collect(train_batches(SAMPLES[:8], VIEWS, SETTINGS, EpochBatches(len(SAMPLES[:8]), 4, 1)))
    assert [b.views.shape for b in batches] == [(3, 4, 3, 32, 32)] * 2
    assert sorted(i for b in batches for i in b.indices.tolist()) == list(range(8))
    for batch in batches:
        assert batch.views.dtype == torch.float32 and batch.labels.dtype == torch.int64
        assert batch.labels.tolist() == [SAMPLES[i].label for i in batch.indices.tolist()]
    for index, views in by_index(batches).items():
        for name, view in zip(VIEWS, views, strict=True):
            expected = draw_view(make_view(name, SMALL), SAMPLES[index].image.open(), 1, 0, index, name)
            assert torch.equal(view, expected)


def test_views_of_an_image_depend_on_epoch_seed_and_index_but_not_on_batches():
    def draw(batch_size: int = 4, seed: int = 1, epoch: int = 0) -> dict[int, torch.Tensor]:
        return by_index(
            collect(
                train_batches(SAMPLES[:8], VIEWS, SETTINGS, EpochBatches(len(SAMPLES[:8]), batch_size, seed, epoch))
            )
        )

    first = draw()
    assert all(torch.equal(first[i], view) for i, view in draw(batch_size=2).items())
    for other in (draw(seed=2), draw(epoch=1)):
        assert not any(torch.equal(first[i], view) for i, view in other.items())
    same_image = (Sample(Blotches(0), 0),) * 4
    views = by_index(collect(train_batches(same_image, ("base",), SETTINGS, EpochBatches(len(same_image), 4, 1))))
    assert len({views[i].numpy().tobytes() for i in range(4)}) == 4


def test_evaluation_batches_are_all_samples_in_order():
    batches = collect(eval_batches(SAMPLES, SMALL, batch_size=4))
    assert [b.indices.tolist() for b in batches] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]]
    view = make_view("eval", SMALL)
    assert all(
        torch.equal(b.views[0, j], view(SAMPLES[i].image.open())) for b in batches for j, i in enumerate(b.indices)
    )
    assert collect(eval_batches((), SMALL, batch_size=4)) == []


@given(count=st.integers(1, 60), size=st.integers(1, 12), seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_an_epoch_has_every_image_once_except_a_single_last_one(count: int, size: int, seed: int, epoch: int):
    assume(count > 1 or size == 1)  # refused, see test_impossible_batches_are_refused
    batches = list(EpochBatches(count, size, seed, epoch))
    assert len(batches) == len(EpochBatches(count, size, seed, epoch))
    keys = [key for batch in batches for key in batch]
    left_out = 1 if size > 1 and count % size == 1 else 0
    assert len(set(keys)) == len(keys) == count - left_out
    assert all(e == epoch and 0 <= i < count for e, i in keys)
    assert all(len(batch) == size for batch in batches[:-1])
    assert size == 1 or all(len(batch) >= 2 for batch in batches)


@given(count=st.integers(2, 60), size=st.integers(1, 12))
def test_an_incomplete_batch_is_dropped_on_request_unless_it_is_the_only_one(count: int, size: int):
    """Dassl has `drop_last=len(data_source) >= batch_size`."""
    sizes = [len(batch) for batch in EpochBatches(count, size, seed=1, drop_last=True)]
    assert sizes == ([count] if count < size else [size] * (count // size))


def test_the_image_left_out_changes_with_the_epoch():
    left_out = {i for e in range(20) for i in set(range(9)) - {i for b in EpochBatches(9, 4, 1, e) for _, i in b}}
    assert len(left_out) > 4


def test_images_in_memory_give_the_same_bits_within_the_budget():
    samples = tuple(Sample(Blotches(i, (300, 280)), 0) for i in range(5))  # over 2 · 4 · 32 pixels, so shrunk by 2
    expected = collect(train_batches(samples, VIEWS, SETTINGS, EpochBatches(len(samples), 5, 1)))
    image_bytes = 4 * 150 * 140
    for budget, count in ((0, 0), (image_bytes * 2 + 5, 2), (2**30, 5)):
        loaded = load_into_memory(samples, SMALL, budget)
        assert [s.image.name for s in loaded] == [s.image.name for s in samples]
        assert sum(isinstance(s.image, DecodedImage) for s in loaded) == count
        assert same(collect(train_batches(loaded, VIEWS, SETTINGS, EpochBatches(len(loaded), 5, 1))), expected)


def test_images_are_decoded_in_several_threads(monkeypatch: pytest.MonkeyPatch):
    both_open = Barrier(2)

    class Slow(Blotches):
        def open(self):
            both_open.wait(timeout=60)  # raises unless another image is opened meanwhile
            return super().open()

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    loaded = load_into_memory([Sample(Slow(i, (40, 30)), i) for i in range(4)], SMALL)
    assert [sample.label for sample in loaded] == [0, 1, 2, 3]
    assert [sample.image.open().tobytes() for sample in loaded] == [
        Blotches(i, (40, 30)).open().tobytes() for i in range(4)
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_image_is_one_line_from_any_process(tmp_path: Path, workers: int):
    (tmp_path / "broken.jpg").write_text("no image")
    samples = (*SAMPLES[:3], Sample(ImageFile(tmp_path / "broken.jpg"), 0))
    for loader in (
        train_batches(samples, ("base",), ViewSettings(SMALL, workers=workers), EpochBatches(len(samples), 4, 1)),
        eval_batches(samples, SMALL, batch_size=2, workers=workers),
    ):
        message = refusal(loader)
        assert message.startswith((tmp_path / "broken.jpg").as_posix()) and "\n" not in message
    with pytest.raises(InputError, match="broken"):
        ImageViews(samples, ("base",), SETTINGS)[0, 3]


def test_worker_processes_pass_views_on_with_8_bits():
    views, _, _ = ImageViews(SAMPLES[:1], VIEWS, SETTINGS)[0, 0]
    assert views.dtype == torch.uint8 and views.shape == (len(VIEWS), 3, SMALL.size, SMALL.size)


def test_impossible_batches_are_refused():
    with pytest.raises(InputError, match="1 training images"):
        train_batches(SAMPLES[:1], VIEWS, SETTINGS, EpochBatches(len(SAMPLES[:1]), 4, 1))
    assert len(collect(train_batches(SAMPLES[:1], VIEWS, SETTINGS, EpochBatches(len(SAMPLES[:1]), 1, 1)))) == 1
    for size in (0, -1):
        with pytest.raises(InputError, match="batch size"):
            train_batches(SAMPLES, VIEWS, SETTINGS, EpochBatches(len(SAMPLES), size, 1))
        with pytest.raises(InputError, match="batch size"):
            eval_batches(SAMPLES, SMALL, batch_size=size)


def test_iterating_draws_nothing_from_the_global_generator():
    state = torch.get_rng_state()
    collect(train_batches(SAMPLES, VIEWS, SETTINGS, EpochBatches(len(SAMPLES), 4, 1)))
    collect(eval_batches(SAMPLES, SMALL, batch_size=4))
    assert torch.equal(torch.get_rng_state(), state)


def test_photographs_are_the_same_bits_in_workers(shared: Path):
    samples = load_dataset("caltech101", shared / "datasets").half("base").few_shot(1, seed=1).train[:6]
    large = Preprocess(224, MEAN, STD)
    expected = collect(train_batches(samples, VIEWS, ViewSettings(large), EpochBatches(len(samples), 3, 1)))
    by_workers = train_batches(samples, VIEWS, ViewSettings(large, workers=2), EpochBatches(len(samples), 3, 1))
    assert same(collect(by_workers), expected)
    views = torch.cat([b.views for b in expected], dim=1)
    assert abs(views.mean()) < 1 and 0.4 < views.std() < 2  # normalised for the backbone: near 0 and 1
