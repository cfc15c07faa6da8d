"""Sample images: only those in the package, and only of classes that the run knows."""

from pathlib import Path

import numpy as np
import pytest

from gopro.clip.backbone import Backbone
from gopro.data.embedded.photos import photos_dataset
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.inference.serve.samples import MAX_SIDE, sample_images
from tests.conftest import make_tiny
from tests.support.serve import open_image, untrained_run

SOME = ["my cat", "Crab", "water lily", "car"]


@pytest.fixture(scope="module")
def emoji() -> Backbone:
    backbone = make_tiny()
    backbone.name = "emoji"
    return backbone


def test_a_run_on_other_photographs_shows_the_classes_that_it_knows(tiny: Backbone, tmp_path: Path) -> None:
    samples = sample_images(untrained_run("zeroshot", tiny, SOME, tmp_path, data=str(tmp_path / "gone")))
    assert [(sample.label, sample.media_type) for sample in samples] == [
        ("crab", "image/jpeg"),
        ("water lily", "image/jpeg"),
    ]
    photos = photos_dataset()
    first = next(sample.image.open() for sample in photos.test if photos.classnames[sample.label] == "crab")
    shown = open_image(samples[0].content)
    assert shown.size == first.size and max(shown.size) <= MAX_SIDE
    assert np.abs(np.asarray(shown, int) - np.asarray(first, int)).mean() < 5


def test_a_run_that_knows_no_packaged_class_shows_nothing(tiny: Backbone, emoji: Backbone, tmp_path: Path) -> None:
    for backbone in (tiny, emoji):
        run = untrained_run("zeroshot", backbone, ["bolt M6", "bolt M8"], tmp_path, data=str(tmp_path / "gone"))
        assert sample_images(run) == []


def test_a_run_on_photos_shows_twelve_of_its_own_classes(tiny: Backbone, tmp_path: Path) -> None:
    new = photos_dataset().half("new").classnames
    labels = [sample.label for sample in sample_images(untrained_run("zeroshot", tiny, new, tmp_path, data="photos"))]
    assert len(labels) == 12 and labels == sorted(set(labels)) and set(labels) < set(new)


def test_emoji_are_shown_by_the_emoji_backbone_only(tiny: Backbone, emoji: Backbone, tmp_path: Path) -> None:
    names = ["soccer ball", "hedgehog"]  # of two emoji sets; photographs have one of them
    by_emoji = sample_images(untrained_run("zeroshot", emoji, names, tmp_path, data="my-drawings"))
    assert {(sample.label, sample.media_type) for sample in by_emoji} == {(name, "image/png") for name in names}
    by_photo = sample_images(untrained_run("zeroshot", tiny, names, tmp_path, data="my-photos"))
    assert [(sample.label, sample.media_type) for sample in by_photo] == [("hedgehog", "image/jpeg")]
    # The data that the run was trained on come first.
    on_emoji = sample_images(untrained_run("zeroshot", tiny, names, tmp_path, data="emoji-animals:noto"))
    assert [(sample.label, sample.media_type) for sample in on_emoji] == [("hedgehog", "image/png")]


def test_data_that_were_asked_for_are_shown_with_all_classes(tiny: Backbone, tmp_path: Path) -> None:
    run = untrained_run("zeroshot", tiny, ["bolt M6", "bolt M8"], tmp_path, data=str(tmp_path / "gone"))
    samples = sample_images(run, "emoji-activities")
    assert len(samples) == 12
    dataset = load_dataset("emoji-activities")
    original = next(s for s in dataset.test if dataset.classnames[s.label] == samples[3].label)
    np.testing.assert_array_equal(np.asarray(open_image(samples[3].content)), np.asarray(original.image.open()))
    with pytest.raises(InputError, match="gone: no such data set"):
        sample_images(run, str(tmp_path / "gone"))


def test_a_style_that_this_version_does_not_have_is_no_error(emoji: Backbone, tmp_path: Path) -> None:
    run = untrained_run("zeroshot", emoji, ["hedgehog"], tmp_path, data="emoji-animals:crayon")
    assert [sample.label for sample in sample_images(run)] == ["hedgehog"]
