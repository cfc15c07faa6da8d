"""Folders of domains: found, refused as data sets, and compared by their classes."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from gopro.data.folders.class_folders import SPLIT_FILE, folder_dataset, folder_target
from gopro.data.folders.domains import compare_classes, domain_folders
from gopro.data.load_dataset import load_dataset, load_target
from gopro.errors import InputError
from tests.support.folders import DOMAINS, make_folders


def test_domains_are_refused_with_the_commands_to_use_them(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "mine", DOMAINS)
    with pytest.raises(InputError) as caught:
        folder_dataset(root)
    assert f"--data {root}/photo" in str(caught.value)
    assert f"--source {root}/photo --targets {root}/sketch --output" in str(caught.value)
    assert not list(root.rglob(SPLIT_FILE))
    with pytest.raises(InputError, match="domains rather than classes"):
        load_target(str(root))
    assert load_dataset(str(root / "photo")).classnames == ("cat", "dog", "fox")


@pytest.mark.parametrize(
    ("folders", "domains"),
    [
        (DOMAINS, {"photo": ["cat", "dog", "fox"], "sketch": ["cat", "dog", "fox"]}),
        (DOMAINS[:-1], {"photo": ["cat", "dog", "fox"], "sketch": ["cat", "dog"]}),  # a domain may lack a class
        (("cat", "dog/2020", "dog/2021"), {}),  # a class folder with images of its own
        (("cat/images", "dog/images"), {}),  # one folder in each class
        (("cat/tabby", "cat/manx", "cat/siamese", "dog/pug", "dog/poodle", "dog/boxer"), {}),  # kinds of each class
        (("photo/cat", "photo/dog"), {}),  # one domain
        (
            ("photo/Cat", "photo/red_fox", "sketch/cat", "sketch/Red fox"),
            {"photo": ["Cat", "red_fox"], "sketch": ["Red fox", "cat"]},
        ),
    ],
)
def test_domains_share_their_class_folders(folders: Iterable[str], domains: dict, tmp_path: Path) -> None:
    assert domain_folders(make_folders(tmp_path, folders)) == domains


@pytest.mark.parametrize(
    ("folders", "advice"),
    [
        (
            ("train2017/cat", "train2017/dog", "val2017/cat", "val2017/dog"),
            "rename them to train, test and perhaps val",
        ),
        (("cat/train", "cat/test", "dog/train", "dog/test"), "the other way round, such as {root}/test/cat"),
        (("photo/train/cat", "photo/test/cat", "art/train/cat", "art/test/cat"), "--data {root}/art. To test"),
        (
            ("train/photo/cat", "train/photo/dog", "train/art/cat", "train/art/dog", "test/art/cat"),
            "see docs/domains.md",
        ),
    ],
)
def test_folders_that_look_like_domains_get_advice(folders: Iterable[str], advice: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        folder_dataset(make_folders(tmp_path, folders))
    assert advice.format(root=tmp_path) in str(caught.value)


def test_a_target_folder_is_tested_whole_and_not_split(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "mine", DOMAINS[:3])
    Path(root / "photo/fox/1.png").unlink()
    target = folder_target(root / "photo")
    assert len(target.test) == 11 and not target.train and not target.val and not (root / "photo" / SPLIT_FILE).exists()
    names = {target.classnames[sample.label] for sample in target.test if "/fox/" in sample.image.name}
    assert names == {"fox"} and target.name == "photo"
    whole = folder_dataset(root / "photo")
    assert {s.image for s in whole.train + whole.val + whole.test} == {s.image for s in target.test}
    make_folders(root / "split", ("train/cat", "train/dog", "test/cat", "test/dog"))
    assert {Path(s.image.name).parts[-3] for s in folder_target(root / "split").test} == {"test"}


def test_a_class_that_the_source_lacks_is_refused() -> None:
    assert compare_classes(["cat", "dog"], {"sketch": ["dog", "cat"]}) == {}
    with pytest.raises(InputError, match="sketch: has the class doge, which the source domain lacks"):
        compare_classes(["cat", "dog"], {"cartoon": ["cat"], "sketch": ["cat", "doge"]})
