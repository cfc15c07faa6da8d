"""PACS in the layouts of its releases, whole or in part."""

from pathlib import Path

import pytest

from gopro.data.load_dataset import load_dataset, load_target
from gopro.data.published.pacs import CLASSES, PACS, PLACES
from gopro.data.published.sources import PACS_SOURCE
from gopro.errors import InputError
from tests.support.folders import make_folders


@pytest.mark.parametrize("place", PLACES)
def test_every_layout_is_found(place: str, tmp_path: Path) -> None:
    make_folders(tmp_path / place / "sketch", CLASSES)
    dataset = load_dataset("pacs:sketch", tmp_path)
    assert dataset.classnames == CLASSES and dataset.name == "pacs:sketch (part)"
    assert PACS["pacs:photo"].missing(tmp_path)
    if not place.endswith("/kfold") and "images" not in place:
        assert load_dataset("pacs:sketch", tmp_path / place) == dataset  # --root may be the folder itself


def test_a_domain_is_split_as_a_source_and_whole_as_a_target(tmp_path: Path) -> None:
    make_folders(tmp_path / "pacs" / "photo", CLASSES, images=10)
    source, target = load_dataset("pacs:photo", tmp_path), load_target("pacs:photo", tmp_path)
    assert (len(source.train), len(source.val), len(source.test)) == (35, 14, 21)
    assert len(target.test) == 70 and not target.train and not target.val
    assert {path.name for path in (tmp_path / "pacs").iterdir()} == {"photo"}  # nothing is written
    assert sum(map(sum, (entry.counts for entry in PACS.values()))) == 9991


def test_other_folders_of_that_name_are_refused(tmp_path: Path) -> None:
    make_folders(tmp_path / "photo", CLASSES)
    (tmp_path / "photo" / "dog").rename(tmp_path / "photo" / "wolf")
    with pytest.raises(InputError, match=r"has the class folders elephant, .*, wolf, but PACS has dog, "):
        load_dataset("pacs:photo", tmp_path)
    with pytest.raises(InputError, match=r"there is no .*pacs"):
        load_dataset("pacs:cartoon", tmp_path)
    with pytest.raises(InputError, match=r"did you mean pacs:sketch\?"):
        load_dataset("pacs:sketches", tmp_path)
    assert PACS_SOURCE.marker in {entry.images for entry in PACS.values()}


def test_the_shared_part_of_pacs(shared: Path) -> None:
    if not (shared / "datasets" / "pacs").is_dir():
        pytest.skip("no PACS in shared/datasets")
    sketch = load_target("pacs:sketch", shared / "datasets")
    assert (sketch.name, len(sketch.test)) == ("pacs:sketch (part)", 280)
    assert sketch.test[0].image.open().mode == "RGB"
