"""The images that settings are chosen by."""

from collections import Counter
from dataclasses import replace
from typing import get_args

import pytest

from gopro.benchmark.held_out import IMAGES, HeldOut
from gopro.data.dataset import Dataset, Sample
from gopro.data.images.restyle import Style
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError


def names(samples: tuple[Sample, ...]) -> set[str]:
    return {sample.image.name for sample in samples}


@pytest.mark.parametrize(("data", "per_class"), [("photos", {"base": 4, "new": 8}), ("emoji-activities", {"base": 8})])
def test_they_are_no_test_images_and_given_to_no_run(data: str, per_class: dict) -> None:
    dataset = load_dataset(data)
    held_out = HeldOut(4, 11, "original").of(dataset)
    given = dataset.half("base").few_shot(4, 11)
    assert not names(held_out.test) & names((*dataset.test, *given.train, *given.val))
    assert not held_out.train and not held_out.val
    for half, count in per_class.items():
        part = held_out.half(half)
        assert set(Counter(sample.label for sample in part.test).values()) == {count}
        assert part.classnames == dataset.half(half).classnames
    assert IMAGES == 8


def test_styles_are_of_the_same_images() -> None:
    dataset = load_dataset("emoji-activities")
    original, *others = (HeldOut(4, 11, style).of(dataset).test for style in get_args(Style))
    for style, samples in zip(get_args(Style)[1:], others, strict=True):
        assert [sample.label for sample in samples] == [sample.label for sample in original]
        assert [sample.image.name for sample in samples] == [f"{sample.image.name} ({style})" for sample in original]


def test_other_seeds_hold_out_other_images() -> None:
    dataset = load_dataset("emoji-activities")
    assert names(HeldOut(4, 11, "original").of(dataset).test) != names(HeldOut(4, 12, "original").of(dataset).test)


def few(dataset: Dataset) -> Dataset:
    return replace(dataset, train=dataset.half("base").few_shot(2, 1).train, val=())


def test_where_training_takes_all_images_there_is_an_error() -> None:
    dataset = replace(few(load_dataset("emoji-activities")), name="mine")
    assert HeldOut(1, 1, "original").of(dataset).test
    with pytest.raises(InputError, match="mine: training on 2 images per class leaves none to choose settings by"):
        HeldOut(2, 1, "original").of(dataset)
