"""Images without labels: a folder's, a data set's, and training images that a run has no labels of."""

from pathlib import Path

import pytest
from PIL import Image

from gopro.data.load_dataset import load_dataset
from gopro.data.unlabeled import draw_images, find_unlabeled
from gopro.errors import InputError

WHOLE = load_dataset("emoji-activities")
FEW = WHOLE.half("base").few_shot(4, seed=1)


def test_a_folder_gives_all_its_images_with_those_of_subfolders(tmp_path: Path) -> None:
    for name in ("a.png", "deep/er/b.jpg", "deep/c.PNG", "deep/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name, "png")
    images = find_unlabeled(str(tmp_path), None, WHOLE, FEW, seed=1).images
    names = [Path(image.name).relative_to(tmp_path).as_posix() for image in images]
    assert names == ["a.png", "deep/c.PNG", "deep/er/b.jpg"]
    with pytest.raises(InputError, match=r"unlabeled_shots is 8, but images in the folder .* no classes to count by"):
        find_unlabeled(str(tmp_path), 8, WHOLE, FEW, seed=1)


def test_an_empty_folder_and_an_unknown_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no images in this folder"):
        find_unlabeled(str(tmp_path), None, WHOLE, FEW, seed=1)
    with pytest.raises(InputError, match="nowhere: no such data set or folder"):
        find_unlabeled("nowhere", None, WHOLE, FEW, seed=1)


@pytest.mark.parametrize("source", [None, "emoji-activities"])
@pytest.mark.parametrize(("shots", "per_class"), [(8, 8), (32, 28)])
def test_images_of_the_data_set_itself_are_not_among_the_labelled(
    source: str | None, shots: int, per_class: int
) -> None:
    """Of base and new classes; 4 of the 32 images of each base class are labelled."""
    images, classnames = find_unlabeled(source, shots, WHOLE, FEW, seed=1)
    assert classnames == WHOLE.classnames
    labels = {sample.image: sample.label for sample in WHOLE.train}
    counts = [sum(labels[image] == label for image in images) for label in range(len(WHOLE.classnames))]
    assert set(counts[: len(FEW.classnames)]) == {per_class}
    assert set(counts[len(FEW.classnames) :]) == {shots}
    assert not set(images) & {sample.image for sample in FEW.train}


def test_a_data_set_gives_its_training_images(shots: int = 2) -> None:
    images = find_unlabeled("emoji-activities:openmoji", shots, WHOLE, FEW, seed=1).images
    trainable = {sample.image for sample in load_dataset("emoji-activities:openmoji").train}
    assert len(images) == shots * len(WHOLE.classnames) and set(images) <= trainable
    assert images != find_unlabeled("emoji-activities:openmoji", shots, WHOLE, FEW, seed=2).images


def test_nothing_is_used_unless_it_is_asked_for() -> None:
    assert find_unlabeled(None, None, WHOLE, FEW, seed=1) == ((), ())
    assert find_unlabeled("emoji-food", 0, WHOLE, FEW, seed=1) == ((), ())


def test_draws_depend_on_the_seed_alone() -> None:
    images = [sample.image for sample in WHOLE.train[:20]]
    first, again, other = (draw_images(images, 5, seed) for seed in (1, 1, 2))
    assert first == again != other and len(set(first)) == 5
    assert sorted(image.name for image in draw_images(images, 99, 1)) == sorted(image.name for image in images)
