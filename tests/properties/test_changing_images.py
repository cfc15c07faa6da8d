"""Images or cached features that change while in use are reported by name and never change a result silently."""

from __future__ import annotations

import os
import shutil
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import gopro.training.batches as batches
from gopro.clip.backbone import Backbone
from gopro.clip.features.encode_views import ViewRequest, encode_views
from gopro.clip.features.store import FeatureStore
from gopro.data.dataset import Sample
from gopro.data.images import image_file
from gopro.data.images.decoded_image import load_into_memory
from gopro.data.images.image_file import ImageFile
from gopro.data.images.loader import DrawnView, EpochBatches, ViewSettings, train_batches, view_batches
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.inference.classifier import Classifier, Prediction
from gopro.methods.registry import build_method
from gopro.runs.config import TrainConfig
from gopro.runs.run import LEARNED
from gopro.training.train import resume, train

CLASSES, PER_CLASS = 3, 8


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of class folders and split it."""
    folder, draw = tmp_path_factory.mktemp("changing") / "images", np.random.default_rng(3)
    for c in range(CLASSES):
        (folder / f"class {c}").mkdir(parents=True)
        for i in range(PER_CLASS):
            noise = draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)
            Image.fromarray(noise).resize((80, 70)).save(folder / f"class {c}" / f"{i}.png")
    load_dataset(str(folder))
    return folder


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    Image.new("RGB", (80, 70), "red").save(path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def replace_by_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


every_harm = pytest.mark.parametrize(
    "harm", [delete, replace, truncate, empty, replace_by_pipe], ids=lambda harm: harm.__name__
)


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Put the image back afterwards."""
    content = path.read_bytes()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def check_names_image(action: Callable[[], Any], path: Path) -> None:
    """Check that an action raises a one-line `InputError` that names the image."""
    with pytest.raises(InputError) as refusal:
        action()
    assert path.name in str(refusal.value) and "\n" not in str(refusal.value)


def coop_config(data: Path, output: Path) -> TrainConfig:
    return TrainConfig(data=str(data), output=output, method="coop", shots=4, epochs=4, batch=3, workers=0)


def training_images(data: Path) -> list[Path]:
    return [sample.image.path for sample in load_dataset(str(data)).few_shot(4, 1).train]  # pyright: ignore


@pytest.fixture(scope="module")
def undisturbed(data: Path, tiny: Backbone, tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Train on unchanged images and return the learned tensors."""
    output = tmp_path_factory.mktemp("undisturbed") / "run"
    train(coop_config(data, output), backbone=tiny)
    return load_file(output / LEARNED)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@every_harm
def test_an_image_harmed_in_training_is_named_and_the_run_resumes(
    harm: Callable[[Path], None],
    trial: int,
    data: Path,
    undisturbed: dict[str, torch.Tensor],
    tmp_path: Path,
    tiny: Backbone,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Allow no memory for decoded images, so that each epoch opens every image again."""
    monkeypatch.setattr(batches, "load_into_memory", partial(load_into_memory, budget=0))
    draw = Random(f"{harm.__name__} {trial}")
    step, path, config = draw.randint(1, 11), draw.choice(training_images(data)), coop_config(data, tmp_path / "run")

    def on_step(progress: Any) -> None:
        if progress.step == step:
            harm(path)

    with restored(path):
        check_names_image(lambda: train(config, backbone=tiny, on_step=on_step), path)
        assert not (tmp_path / "run" / LEARNED).exists()
    try:
        resume(tmp_path / "run", backbone=tiny)
    except InputError:  # it stopped in its first epoch, before the first checkpoint
        shutil.rmtree(tmp_path / "run")
        train(config, backbone=tiny)
    assert same(load_file(tmp_path / "run" / LEARNED), undisturbed)


def test_an_image_replaced_before_resuming_is_named(
    trial: int, data: Path, undisturbed: dict[str, torch.Tensor], tmp_path: Path, tiny: Backbone
) -> None:
    draw = Random(f"between {trial}")
    step, path = draw.randint(5, 16), draw.choice(training_images(data))  # in the second epoch or later

    def interrupt(progress: Any) -> None:
        if progress.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(coop_config(data, tmp_path / "run"), backbone=tiny, on_step=interrupt)
    with restored(path):
        replace(path)
        check_names_image(partial(resume, tmp_path / "run", backbone=tiny), path)
    resume(tmp_path / "run", backbone=tiny)
    assert same(load_file(tmp_path / "run" / LEARNED), undisturbed)


@every_harm
def test_an_image_harmed_while_views_are_encoded_leaves_no_wrong_features_in_the_cache(
    harm: Callable[[Path], None], trial: int, data: Path, tmp_path: Path, tiny: Backbone
) -> None:
    views = [ViewRequest(s.image, "base", draw) for s in load_dataset(str(data)).train for draw in range(2)]
    expected = encode_views(FeatureStore(tiny, tmp_path / "undisturbed"), views, batch=1)[:].rows()
    draw = Random(f"{harm.__name__} {trial}")
    after = draw.randrange(1, len(views) // 2)
    path: Path = views[draw.randrange(min(2 * after + 2, len(views) - 1), len(views))].image.path  # pyright: ignore
    encoded = 0

    def on_progress(more: int) -> None:
        nonlocal encoded
        if encoded < after <= encoded + more:
            harm(path)
        encoded += more

    with restored(path):
        store = FeatureStore(tiny, tmp_path / "cache")
        check_names_image(lambda: encode_views(store, views, batch=1, on_progress=on_progress), path)
    assert torch.equal(encode_views(FeatureStore(tiny, tmp_path / "cache"), views, batch=1)[:].rows(), expected)


@every_harm
def test_an_image_harmed_before_it_is_read_spoils_no_other_prediction(
    harm: Callable[[Path], None], trial: int, data: Path, tiny: Backbone
) -> None:
    classifier = Classifier(build_method("zeroshot", tiny, ("a", "b", "c"), "a photo of a {}."))
    paths = sorted(map(str, data.rglob("*.png")))
    expected = {answer.image: answer.predictions for answer in classifier.stream(paths, batch=2, workers=1)}
    draw = Random(f"{harm.__name__} {trial}")
    turn = draw.randrange(len(paths) - 8)
    victim = paths[draw.randrange(turn + 7, len(paths))]

    def some_paths() -> Iterator[str]:
        for i, path in enumerate(paths):
            if i == turn:
                harm(Path(victim))
            yield path

    with restored(Path(victim)):
        answers = {answer.image: answer for answer in classifier.stream(some_paths(), batch=2, workers=1)}
    assert list(answers) == paths
    harmed = answers.pop(victim)
    assert all(close(answer.predictions, expected[image]) for image, answer in answers.items())
    if harm is replace:  # its earlier content is unknown here
        assert harmed.error is None and not close(harmed.predictions, expected[victim])
    else:
        assert harmed.error is not None and victim in str(harmed.error)


def close(a: list[Prediction], b: list[Prediction]) -> bool:
    """Compare up to rounding, because the images in the same batch change the last bits."""
    return [p.name for p in a] == [p.name for p in b] and all(
        abs(p.probability - q.probability) < 1e-4 for p, q in zip(a, b, strict=True)
    )


DAMAGES = ["a flipped bit", "NaN", "infinity", "a page of zeros", "a cut", "another version", "exchanged rows"]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_cached_features_are_computed_again(
    damage: str, trial: int, data: Path, tmp_path: Path, tiny: Backbone
) -> None:
    views = [ViewRequest(sample.image, "eval") for sample in load_dataset(str(data)).train]
    expected = encode_views(FeatureStore(tiny, tmp_path / "cache"), views, batch=1)[:].rows()
    [path] = (tmp_path / "cache").rglob("*.safetensors")
    content, tensors, draw = path.read_bytes(), load_file(path), Random(f"{damage} {trial}")
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    header = len(content) - sum(tensor.nbytes for tensor in tensors.values())
    rows = tensors["rows"].clone()
    path.unlink()
    path = path.with_name("damaged.safetensors")
    if damage == "a flipped bit":
        flipped = bytearray(content)
        flipped[draw.randrange(header, len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
    elif damage == "a page of zeros":
        begin = draw.randrange(header, len(content))
        path.write_bytes(content[:begin] + bytes(len(content) - begin))
    elif damage == "a cut":
        path.write_bytes(content[: draw.randrange(len(content))])
    elif damage == "another version":
        save_file(tensors, path, {**metadata, "format": str(draw.randrange(3, 99))})
    elif damage == "exchanged rows":
        save_file({**tensors, "rows": rows.roll(1, 0)}, path, metadata)
    else:
        rows[draw.randrange(len(rows)), draw.randrange(rows.shape[1])] = float("nan" if damage == "NaN" else "inf")
        save_file({**tensors, "rows": rows}, path, metadata)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        features = encode_views(FeatureStore(tiny, tmp_path / "cache"), views, batch=1)[:].rows()
    assert torch.equal(features, expected)
    # A bit of a key or of the padding may flip without a warning: the entry is then a cache miss.
    silent = damage in ("a flipped bit", "a page of zeros")
    assert silent or any("damaged.safetensors" in str(warning.message) for warning in caught)


def test_an_undamaged_cache_is_read_without_a_warning(data: Path, tmp_path: Path, tiny: Backbone) -> None:
    views = [ViewRequest(sample.image, "eval") for sample in load_dataset(str(data)).train]
    expected = encode_views(FeatureStore(tiny, tmp_path), views)[:].rows()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encode_views(FeatureStore(tiny, tmp_path), views)[:].rows().equal(expected)


def test_an_image_replaced_after_its_digest_was_taken_is_refused(tmp_path: Path, tiny: Backbone) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (40, 40), "blue").save(path)
    image = ImageFile(path)
    digest = image.digest()
    views = [DrawnView(image, view, digest, 0) for view in ("eval", "base")]
    assert len(list(view_batches(views, ViewSettings(tiny.preprocess), 1))) == 2
    samples = load_into_memory([Sample(image, 0)] * 2, tiny.preprocess, budget=0)
    assert samples[0].image.digest() == digest and samples[0].image.name == image.name
    Image.new("RGB", (40, 40), "red").save(path)
    for workers in (0, 1):
        settings = ViewSettings(tiny.preprocess, workers=workers)
        for view in views:
            with pytest.raises(InputError, match=r"a\.png: the image was replaced"):
                list(view_batches([view], settings, 1))
        with pytest.raises(InputError, match=r"a\.png: the image was replaced"):
            list(train_batches(samples, ("base",), settings, EpochBatches(len(samples), 2, seed=1)))


def test_a_file_on_a_slow_disk_is_named_in_a_warning_and_then_read(
    data: Path, tmp_path: Path, tiny: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulate the disk with an `os.open` that sleeps."""
    views = [ViewRequest(sample.image, "eval") for sample in load_dataset(str(data)).test]
    expected = encode_views(FeatureStore(tiny, None), views)[:].rows()
    victim, opened = views[0].image, os.open

    def slow(path: Any, *arguments: Any, **settings: Any) -> int:
        if path == victim.path:  # pyright: ignore
            time.sleep(1.5)
        return opened(path, *arguments, **settings)

    monkeypatch.setattr(image_file, "SLOW_READ_SECONDS", 0.4)
    monkeypatch.setattr(os, "open", slow)
    with pytest.warns(UserWarning, match=rf"{victim.name}: still not read after"):
        features = encode_views(FeatureStore(tiny, None), views)[:].rows()
    assert torch.equal(features, expected)


def test_a_fast_disk_causes_no_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_file, "SLOW_READ_SECONDS", 0.2)
    Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(100):
            ImageFile(tmp_path / "a.png").open()
        time.sleep(0.3)
