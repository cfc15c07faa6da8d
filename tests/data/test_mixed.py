"""Data sets joined by `+`: their names, their classes, and the images that are drawn from each."""

import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gopro.clip.weights.embedded import default_backbone
from gopro.data.checks.check_dataset import load_for_check
from gopro.data.checks.verify import verify_dataset
from gopro.data.dataset import Dataset, Sample
from gopro.data.few_shot import check_shots, short_classes
from gopro.data.folders.class_folders import SPLIT_FILE
from gopro.data.folders.domains import domain_folders
from gopro.data.load_dataset import absolute_name, has_own_name, is_packaged, joined_names, load_dataset, load_target
from gopro.data.mixed import mix
from gopro.data.unlabeled import find_unlabeled
from gopro.errors import InputError
from tests.support.folders import DOMAINS, make_folders


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    return make_folders(tmp_path / "mine", DOMAINS, images=10)


def labelled(samples: tuple[Sample, ...], dataset: Dataset) -> Counter[tuple[str, str]]:
    return Counter((sample.image.name, dataset.classnames[sample.label]) for sample in samples)


def all_samples(dataset: Dataset) -> Iterator[Sample]:
    return iter((*dataset.train, *dataset.val, *dataset.test))


def test_every_part_holds_that_of_each_domain(mine: Path) -> None:
    alone = [load_dataset(str(mine / name)) for name in ("photo", "sketch")]
    mixed = load_dataset(f"{mine}/photo+{mine}/sketch")
    assert (mixed.name, mixed.classnames) == ("photo+sketch", ("cat", "dog", "fox"))
    for part in ("train", "val", "test"):
        parts = [labelled(each.split(part), each) for each in alone]
        assert labelled(mixed.split(part), mixed) == parts[0] + parts[1] and parts[0] and parts[1]
    assert all(f"/{sample.domain}/" in sample.image.name for sample in all_samples(mixed))
    target = load_target(f"{mine}/photo+{mine}/sketch")
    assert len(target.test) == 60 and not target.train and not target.val


@pytest.mark.parametrize("half", ["all", "base", "new"])
@pytest.mark.parametrize("shots", [1, 3, "all"])
def test_each_domain_gives_the_images_that_it_gives_alone(half, shots, tmp_path: Path) -> None:
    classes = [f"{domain}/{name}" for domain in ("photo", "sketch", "art") for name in ("ant", "cat", "dog", "fox")]
    mine = make_folders(tmp_path / "mine", classes, images=10)
    names = [str(mine / name) for name in ("photo", "sketch", "art")]
    few = load_dataset("+".join(names)).half(half).few_shot(shots, seed=2)
    alone = [load_dataset(name).half(half).few_shot(shots, seed=2) for name in names]
    for part in ("train", "val"):
        assert labelled(few.split(part), few) == sum((labelled(each.split(part), each) for each in alone), Counter())
    per_style = Counter((sample.label, sample.domain) for sample in few.train)
    assert set(per_style.values()) == {5 if shots == "all" else shots} and len(per_style) == 3 * len(few.classnames)


def test_classes_match_in_any_spelling_and_the_lacking_ones_are_named(tmp_path: Path) -> None:
    root = make_folders(tmp_path, ["photo/cat", "photo/snowy_owl", "art/Snowy Owl", "art/Cat", "art/wolf"])
    with pytest.warns(UserWarning, match=r"photo lacks wolf of the 3 classes of photo\+art, so .* the others alone"):
        mixed = load_dataset(f"{root}/photo+{root}/art")
    assert mixed.classnames == ("cat", "snowy owl", "wolf")
    for sample in all_samples(mixed):
        folder = Path(sample.image.name).parent.name
        assert mixed.classnames[sample.label] == folder.replace("_", " ").lower()
    pairs = [("cat", "photo"), ("snowy owl", "photo"), ("cat", "art"), ("snowy owl", "art"), ("wolf", "art")]
    assert short_classes(mixed, 3) == {f"{name} in {domain}": 2 for name, domain in pairs}
    with pytest.raises(InputError, match=r"class 'cat in photo' has 2 training images, fewer than 3"):
        check_shots(mixed, 3)
    assert len(mixed.few_shot(2, seed=1).train) == 10


def test_what_is_no_set_of_styles_is_refused(mine: Path, tmp_path: Path) -> None:
    make_folders(tmp_path, ["birds/owl", "birds/crow", "other/photo/cat", "other/photo/dog"])
    with pytest.raises(
        InputError, match=r"birds: none of its classes \(.*crow.*\) is one of the data sets .*\(cat, dog, fox"
    ):
        load_dataset(f"{mine}/photo+{tmp_path}/birds")
    with pytest.raises(InputError, match=r"photo\+photo: photo is there twice"):
        load_dataset(f"{mine}/photo+{tmp_path}/other/photo")
    with pytest.raises(InputError, match=r"give a data set before and after each \+"):
        load_dataset(f"{mine}/photo+")
    with pytest.raises(InputError, match=r"/typo: no such data set or folder"):
        load_dataset(f"{mine}/photo+{mine}/typo")
    with pytest.raises(InputError, match=r"^no\+where: no such data set or folder"):
        load_dataset("no+where")
    photo = load_dataset(str(mine / "photo"))
    with pytest.raises(InputError, match="art has no training images: it can only be tested on"):
        mix([photo, replace(photo, name="art", train=())])


def test_the_prompt_of_the_first_is_used_and_a_difference_is_said(tmp_path: Path) -> None:
    make_folders(tmp_path / "dtd" / "images", ["banded", "dotted"])
    make_folders(tmp_path, ["mine/banded", "mine/dotted"])
    with pytest.warns(UserWarning, match=r"dtd \(part\)\+mine: their prompts differ; .*, '\{\} texture\.'"):
        assert load_dataset(f"dtd+{tmp_path}/mine", tmp_path).template == "{} texture."
    assert load_dataset("emoji-food:noto+emoji-food:fluent").crop == load_dataset("emoji-food").crop


def test_a_path_that_exists_is_not_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_folders(tmp_path, ["c++/a/cat", "c++/a/dog", "c++/b/cat", "c++/b/dog", "x+y/cat", "x+y/dog", "x/cat", "y/cat"])
    monkeypatch.chdir(tmp_path)
    assert joined_names("x+y") == ["x+y"] and load_dataset("x+y").name == "x+y"
    assert joined_names("c++/a+c++/b") == ["c++/a", "c++/b"] and load_dataset("c++/a+c++/b").domains == ("a", "b")
    assert joined_names("a+b", tmp_path / "c++") == ["a", "b"]  # below the root
    assert joined_names("x+y+c++/a") == ["x+y", "c++/a"]
    absolute = absolute_name("c++/a+photos+x+y")
    monkeypatch.chdir("/")
    assert absolute == f"{tmp_path}/c++/a+photos+{tmp_path}/x+y" and len(joined_names(absolute)) == 3
    assert joined_names("hf:me/mine[label=a+b]+photos") == ["hf:me/mine[label=a+b]", "photos"]


def test_a_name_means_published_data_only_if_all_of_it_does(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the images of a private folder would be shown to all who reach the server."""
    private = f"photos+{mine}/photo"
    assert is_packaged("photos+emoji-animals:noto") and not is_packaged(private)
    assert not is_packaged(f"emoji-animals+{mine}/photo") and not is_packaged("emoji-animals+pacs:photo")
    assert has_own_name("pacs:photo+pacs:sketch") and not has_own_name(private)
    monkeypatch.chdir(mine.parent)
    make_folders(mine.parent / "photos+emoji-animals", ["cat", "dog"])
    assert joined_names("photos+emoji-animals") == ["photos", "emoji-animals"]  # whatever folders there are
    assert default_backbone("emoji-food:noto+emoji-food:fluent") == "emoji"
    assert default_backbone(f"emoji-food:noto+{mine}/photo") == "photo"


def test_images_without_labels_come_from_each_domain(mine: Path) -> None:
    mixed = load_dataset(f"{mine}/photo+{mine}/sketch")
    few = mixed.few_shot(2, seed=1)
    found = find_unlabeled(None, 2, mixed, few, seed=1)
    domain_of = {sample.image: (sample.label, sample.domain) for sample in mixed.train}
    assert set(Counter(domain_of[image] for image in found.images).values()) == {2} and len(found.images) == 12
    assert not {sample.image for sample in few.train} & set(found.images)


def test_a_check_writes_nothing_and_finds_copies_across_domains(mine: Path) -> None:
    name = f"{mine}/photo+{mine}/sketch"
    test = next(sample for sample in load_dataset(str(mine / "sketch")).test if "/cat/" in sample.image.name)
    train = next(sample for sample in load_dataset(str(mine / "photo")).train if "/cat/" in sample.image.name)
    shutil.copy(train.image.name, test.image.name)
    for file in mine.rglob(SPLIT_FILE):
        file.unlink()
    loaded = load_for_check(name)
    assert not list(mine.rglob(SPLIT_FILE)) and not loaded.problems
    result = verify_dataset(loaded.dataset, workers=1)
    assert f"{test.image.name}: the same image as {train.image.name} (train and test)" in result.problems
    (mine / "sketch" / "dog" / "note.xyz").write_text("no image")
    shutil.rmtree(mine / "photo" / "fox")
    assert any("note.xyz" in problem for problem in load_for_check(name).problems)
    assert any("photo lacks fox" in note for note in load_for_check(name).notes)
    shutil.rmtree(mine / "sketch")
    (mine / "sketch" / "cat").mkdir(parents=True)
    unusable = load_for_check(name)
    assert unusable.problems and len(unusable.dataset.test) == 20 and not unusable.dataset.classnames


def test_the_domains_of_a_folder_can_be_joined(mine: Path) -> None:
    names = [str(mine / name) for name in domain_folders(mine)]
    assert load_dataset("+".join(names)).domains == ("photo", "sketch")
    assert load_dataset(names[0]).domains == ()


def test_three_domains_of_the_shared_part_of_pacs(shared: Path) -> None:
    if not (shared / "datasets" / "pacs").is_dir():
        pytest.skip("no PACS in shared/datasets")
    names = [f"pacs:{name}" for name in ("photo", "art_painting", "cartoon")]
    mixed = load_dataset("+".join(names), shared / "datasets")
    assert mixed.domains == tuple(f"{name} (part)" for name in names) and len(mixed.classnames) == 7
    few = mixed.few_shot(4, seed=3)
    assert len(few.train) == len(few.val) == 3 * 7 * 4
    for name in names:
        alone = load_dataset(name, shared / "datasets").few_shot(4, seed=3)
        own = [sample for sample in few.train if sample.domain == alone.name]
        assert labelled(tuple(own), few) == labelled(alone.train, alone) and len(own) == 28
