"""Copies of images across parts and classes: the same bytes, and the same picture in other bytes."""

import io
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gopro.data.checks.duplicates import (
    NEAR_BITS,
    ListedImage,
    _close_pairs,
    perceptual_hash,
    same_images,
    similar_images,
)
from gopro.data.embedded.photos import photos_dataset


def listed(name: str, part: str, classname: str, digest: str = "a", phash: int | None = None) -> ListedImage:
    return ListedImage(name, part, classname, digest, phash)


def test_copies_in_other_parts_and_classes_are_named():
    images = [listed("1", "train", "cat"), listed("2", "train", "cat"), listed("3", "test", "cat")]
    images += [listed("4", "train", "dog"), listed("5", "train", "dog", "b"), listed("6", "test", "dog")]
    assert same_images(images) == [
        "3: the same image as 1 (train and test)",
        "4: the same image as 1 (classes cat and dog)",
        "6: the same image as 1 (classes cat and dog, train and test)",
    ]
    assert same_images(images[:2]) == [] and same_images([images[0], images[0]._replace(part="test")]) == []


@pytest.mark.parametrize("change", ["jpeg", "half"])
def test_a_photograph_saved_anew_is_similar_to_itself_alone(change: str):
    images = []
    for i, sample in enumerate(photos_dataset().train[::8]):
        image = sample.image.open()
        if change == "half":
            altered = image.reduce(2)
        else:
            image.save(file := io.BytesIO(), "JPEG", quality=30)
            altered = Image.open(file)
        images += [
            listed(f"{i}", "train", "a", f"{i}", perceptual_hash(image)),
            listed(f"{i}'", "test", "a", f"{i}'", perceptual_hash(altered.convert("RGB"))),
        ]
    assert similar_images(images) == [f"{i}': looks like {i} (train and test)" for i in range(len(images) // 2)]


def test_copies_and_images_without_a_hash_are_not_similar():
    images = [listed("1", "train", "cat", phash=5), listed("2", "test", "cat", phash=5)]
    assert similar_images(images) == []
    assert similar_images([images[0], images[1]._replace(digest="b", phash=None)]) == []


@settings(max_examples=30)
@given(st.integers(0, 2**32))
def test_the_pairs_are_those_that_comparing_all_finds(seed: int):
    rng = random.Random(seed)
    start = [rng.getrandbits(64) for _ in range(4)]
    hashes = [rng.choice(start) ^ sum(1 << bit for bit in rng.sample(range(64), rng.randrange(8))) for _ in range(40)]
    pairs = [(a, b) for b in range(40) for a in range(b) if (hashes[a] ^ hashes[b]).bit_count() <= NEAR_BITS]
    assert list(_close_pairs(hashes)) == pairs
