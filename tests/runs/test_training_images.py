"""The digests of a run's training images."""

import json
from pathlib import Path

import pytest
from PIL import Image

from gopro.clip.backbone import Backbone
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from gopro.runs.config import TrainConfig
from gopro.runs.training_images import TRAINING_IMAGES, leave_out_training_images, read_training_images
from gopro.training.train import resume, train
from tests.support.interrupt import Cut, cut_in


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes of twelve images, all different."""
    for label, name in enumerate(("red_fox", "owl", "pine tree")):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(12):
            Image.new("RGB", (40, 40), (80 * label, 20 * i, 60)).save(tmp_path / "mine" / name / f"{i}.png")
    return tmp_path / "mine"


def config(data: Path, output: Path, **changes: object) -> TrainConfig:
    settings = {"method": "coop", "shots": 4, "epochs": 1, "batch": 32, "workers": 0, "device": "cpu", **changes}
    return TrainConfig(data=str(data), output=output, **settings)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("method", "select", "uses_val"),
    [("coop", "last", False), ("coop", "val", True), ("linear-probe", "last", True)],
)
def test_a_run_lists_the_images_that_it_is_given(
    method: str, select: str, uses_val: bool, images: Path, tmp_path: Path, tiny: Backbone
) -> None:
    run = train(config(images, tmp_path / "run", method=method, select=select, seed=3), backbone=tiny)
    few = load_dataset(str(images)).few_shot(4, 3)
    assert (len(few.train), len(few.val)) == (12, 6)  # two of each class are left for validation
    given = (*few.train, *few.val) if uses_val else few.train
    assert read_training_images(run.folder) == [sample.image.digest() for sample in given]
    assert str(tmp_path) not in (run.folder / TRAINING_IMAGES).read_text()


def test_a_method_that_learns_nothing_lists_none(images: Path, tmp_path: Path, tiny: Backbone) -> None:
    run = train(config(images, tmp_path / "run", method="zeroshot"), backbone=tiny)
    assert read_training_images(run.folder) is None


def test_images_are_recognised_by_their_content(images: Path) -> None:
    """Under another name and label, but not if another image has taken the name of a training image."""
    first, second, *rest = load_dataset(str(images)).test
    digests = [sample.image.digest() for sample in (first, second)]
    Path(first.image.name).rename(Path(rest[0].image.name))
    Image.new("RGB", (40, 40), (1, 2, 3)).save(first.image.name)
    assert leave_out_training_images([first, second, *rest], digests) == (first, *rest[1:])


@pytest.mark.parametrize("content", [b"", b"[]", b'{"digests": 1}', b'{"digests": [1]}', b"[" * 9999])
def test_a_broken_list_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / TRAINING_IMAGES).write_bytes(content)
    with pytest.raises(InputError, match=r"training_images\.json is not a list of training images") as error:
        read_training_images(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("epoch", [0, 1])
def test_images_that_are_replaced_during_an_interruption(
    epoch: int, images: Path, tmp_path: Path, tiny: Backbone
) -> None:
    """In its first epoch the run starts again, on the images that there are then; later it is refused."""
    with pytest.raises(Cut):
        train(config(images, tmp_path / "run", epochs=2), backbone=tiny, on_step=cut_in(epoch))
    first = load_dataset(str(images)).few_shot(4, 1).train[0].image
    Image.new("RGB", (40, 40), (9, 9, 9)).save(first.name)
    if epoch:
        with pytest.raises(InputError, match="the run began with another image here"):
            resume(tmp_path / "run", backbone=tiny)
    else:
        resume(tmp_path / "run", backbone=tiny)
        assert json.loads((tmp_path / "run" / TRAINING_IMAGES).read_text())["digests"][0] == first.digest()
