"""Digests of lists of images."""

from dataclasses import replace
from pathlib import Path

from gopro.data.dataset import Dataset, Sample
from gopro.data.images.image_file import ImageFile
from gopro.runs.image_lists import digest_test_list, digest_training_images


def part(folder: str, *paths: str) -> Dataset:
    test = tuple(Sample(ImageFile(Path(folder) / path), int(path[0] == "b")) for path in paths)
    return Dataset("x", ("a", "b"), (), (), test)


def test_a_list_of_test_images_depends_on_classes_and_file_names_but_not_on_their_folder() -> None:
    here = part("/here", "a/1.png", "b/1.png")
    assert digest_test_list(here) == digest_test_list(part("/there/else", "a/1.png", "b/1.png"))
    others = [
        part("/here", "a/1.png", "b/2.png"),
        part("/here", "a/1.png"),
        part("/here", "a/1.png", "a/1.png"),
        replace(here, classnames=("a", "c")),
    ]
    assert len({digest_test_list(dataset) for dataset in (here, *others)}) == 5


def test_training_images_depend_on_the_content_of_each() -> None:
    lists = [None, ["0" * 32], ["0" * 32, "1" * 32], ["0" * 32, "2" * 32]]
    assert len({digest_training_images(digests) for digests in lists}) == 4
    assert digest_training_images(None) is None
