"""Images and features that change while they are worked on: each is named, none changes a result."""

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from gopro.clip.backbone import Backbone
from gopro.clip.feature_store import FeatureStore
from gopro.data.dataset import Sample
from gopro.data.decoded_image import load_into_memory
from gopro.data.image_file import ImageFile
from gopro.data.loader import DrawnView, ViewSettings, train_batches, view_batches
from gopro.errors import InputError
from tools.torture import data as torture


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with warnings.catch_warnings():
        return torture.images(tmp_path_factory.mktemp("faults") / "images")


def holds(row) -> None:
    assert row.tried == row.held > 0, row


@pytest.mark.parametrize("harm", torture.HARMS, ids=lambda harm: harm.__name__)
def test_a_image_that_is_harmed_while_it_is_needed(
    harm: Callable, images: Path, tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOPRO_CACHE", str(tmp_path / "cache"))
    draw = random.Random(harm.__name__)
    holds(torture.training(tmp_path, images, tiny, harm, draw, 1))
    holds(torture.filling(tmp_path, images, tiny, harm, draw, 1))
    holds(torture.predicting(images, tiny, harm, draw, 1))


def test_a_image_that_is_replaced_while_no_run_is_at_work(images: Path, tmp_path: Path, tiny: Backbone) -> None:
    holds(torture.exchanging(tmp_path, images, tiny, random.Random(1), 2))


def test_features_that_are_not_what_was_written(images: Path, tmp_path: Path, tiny: Backbone) -> None:
    for row in torture.stores(tmp_path, images, tiny, random.Random(1), 3):
        holds(row)


def test_a_disk_that_does_not_answer(images: Path, tmp_path: Path, tiny: Backbone, monkeypatch) -> None:
    monkeypatch.setenv("GOPRO_CACHE", str(tmp_path / "cache"))
    holds(torture.stalled(images, tiny, 1))


def test_a_disk_that_answers_is_not_spoken_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PATIENCE", 0.2)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            ImageFile(tmp_path / "a.png").open()
    assert not reading._WATCH._since


def test_content_that_changed_is_not_taken_for_what_it_was(tmp_path: Path, tiny: Backbone) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40), "blue").save(path)
    image = ImageFile(path)
    digest = image.digest()
    drawn = [DrawnView(image, view, digest, 0) for view in ("eval", "base")]
    assert len(list(view_batches(drawn, ViewSettings(tiny.preprocess), 1))) == 2
    kept = load_into_memory([Sample(image, 0)] * 2, tiny.preprocess, budget=0)
    assert kept[0].image.digest() == digest and kept[0].image.name == image.name
    Image.new("RGB", (40, 40), "red").save(path)
    for workers in (0, 1):
        settings = ViewSettings(tiny.preprocess, workers=workers)
        for view in drawn:
            with pytest.raises(InputError, match=r"a\.png: the image was replaced"):
                list(view_batches([view], settings, 1))
        with pytest.raises(InputError, match=r"a\.png: the image was replaced"):
            list(train_batches(kept, ("base",), settings, 2, seed=1))


def test_a_sound_store_is_read_without_a_word(images: Path, tmp_path: Path, tiny: Backbone) -> None:
    wanted = [torture.ViewRequest(s.image, "eval") for s in torture.load_dataset(str(images)).train]
    expected = torture.encode_views(FeatureStore(tiny, tmp_path), wanted)[:].rows()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torture.encode_views(FeatureStore(tiny, tmp_path), wanted)[:].rows().equal(expected)
