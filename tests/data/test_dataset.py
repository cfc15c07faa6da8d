"""Class halves and few-shot draws: the same images for the same seed, in any order of calls."""

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from gopro.data.dataset import Dataset, Sample
from gopro.data.few_shot import check_shots, short_classes, warn_of_short_classes
from gopro.errors import InputError


@dataclass(frozen=True)
class Blank:
    """An image that has only a name."""

    name: str

    def open(self) -> Image.Image:
        return Image.new("RGB", (1, 1))

    def digest(self) -> str:
        return self.name


@st.composite
def datasets(draw: st.DrawFn, smallest: int = 4) -> Dataset:
    classes = draw(st.integers(4, 9))

    def split(name: str, smallest: int) -> tuple[Sample, ...]:
        counts = draw(st.lists(st.integers(smallest, 12), min_size=classes, max_size=classes))
        samples = [Sample(Blank(f"{name}/{c}/{i}"), c) for c, count in enumerate(counts) for i in range(count)]
        return tuple(draw(st.permutations(samples)))

    names = tuple(f"class {c}" for c in range(classes))
    return Dataset("made up", names, split("train", smallest), split("val", 0), split("test", 1))


def images(samples: tuple[Sample, ...]) -> list[str]:
    return [s.image.name for s in samples]


@given(datasets())
def test_the_halves_divide_the_classes_and_their_images(dataset: Dataset):
    base, new = dataset.half("base"), dataset.half("new")
    assert base.classnames + new.classnames == dataset.classnames
    assert len(base.classnames) - len(new.classnames) in (0, 1)
    for part in ("train", "val", "test"):
        both = [(half.classnames[s.label], s.image) for half in (base, new) for s in half.split(part)]
        assert Counter(both) == Counter((dataset.classnames[s.label], s.image) for s in dataset.split(part))
        for half in (base, new):
            assert all(0 <= s.label < len(half.classnames) for s in half.split(part))
    assert dataset.half("all") is dataset


@given(datasets(), st.integers(1, 4), st.integers(0, 9))
def test_a_draw_has_its_shots_and_all_test_images(dataset: Dataset, shots: int, seed: int):
    drawn = dataset.few_shot(shots, seed)
    assert Counter(s.label for s in drawn.train) == dict.fromkeys(range(len(dataset.classnames)), shots)
    available = Counter(s.label for s in dataset.val)
    assert Counter(s.label for s in drawn.val) == {c: min(shots, 4, n) for c, n in available.items()}
    assert len(set(images(drawn.train))) == len(drawn.train)
    assert set(drawn.train) <= set(dataset.train) and set(drawn.val) <= set(dataset.val)
    assert drawn.test == dataset.test and drawn.classnames == dataset.classnames


@given(datasets(), st.integers(1, 4), st.integers(0, 9), st.randoms(use_true_random=False))
def test_a_draw_depends_on_the_seed_and_the_class_alone(dataset: Dataset, shots: int, seed: int, order):
    drawn = dataset.few_shot(shots, seed)
    dataset.few_shot(1, seed + 1)  # another draw in between must not matter
    train = list(dataset.train)
    order.shuffle(train)
    assert images(replace(dataset, train=tuple(train)).few_shot(shots, seed).train) == images(drawn.train)
    for half in ("base", "new"):
        assert dataset.half(half).few_shot(shots, seed) == drawn.half(half)


@given(datasets(smallest=8), st.integers(0, 9))
def test_seeds_draw_differently(dataset: Dataset, seed: int):
    assume(len(dataset.classnames) >= 5)
    draws = {tuple(images(dataset.few_shot(4, seed + i).train)) for i in range(3)}
    assert len(draws) == 3


def test_a_draw_is_the_same_on_every_machine(shared: Path, tmp_path: Path):
    """Repeat a recorded draw in another process, with another hash seed, folder and order of the split file."""
    home = tmp_path / "elsewhere" / "caltech-101"
    (home / "101_ObjectCategories").mkdir(parents=True)
    split = json.loads((shared / "datasets" / "caltech-101" / "split_zhou_Caltech101.json").read_text())
    split["train"].reverse()
    (home / "split_zhou_Caltech101.json").write_text(json.dumps(split))
    code = """
import sys
from pathlib import Path
from gopro import load_dataset
data = load_dataset("caltech101", Path(sys.argv[1]))
data.few_shot(2, seed=9)
for sample in data.half("base").few_shot(4, seed=1).train[:8]:
    print(data.classnames[sample.label], sample.image.path.name)
"""
    environment = {**os.environ, "PYTHONHASHSEED": "123"}
    done = subprocess.run(
        [sys.executable, "-c", code, home.parent], env=environment, capture_output=True, text=True, check=True
    )
    drawn = {"face": ("0212", "0095", "0171", "0256"), "leopard": ("0169", "0009", "0059", "0108")}
    assert done.stdout.splitlines() == [f"{name} image_{i}.jpg" for name, numbers in drawn.items() for i in numbers]


def uneven() -> Dataset:
    train = [Sample(Blank(f"{label}/{i}"), label) for label, count in enumerate((1, 6, 3)) for i in range(count)]
    val = [Sample(Blank(f"val/{i}"), 1) for i in range(7)]
    return Dataset("few", ("owl", "fox", "elk"), tuple(train), tuple(val), ())


def test_a_class_with_fewer_images_than_shots_gives_all_of_them():
    drawn = uneven().few_shot(4, seed=1)
    assert Counter(s.label for s in drawn.train) == {0: 1, 1: 4, 2: 3} and len(drawn.val) == 4
    with pytest.raises(InputError, match="shots is 0: give at least 1 image per class, or all"):
        uneven().few_shot(0, seed=1)


def test_all_shots_are_all_training_and_validation_images():
    drawn = uneven().few_shot("all", seed=1)
    assert set(drawn.train) == set(uneven().train) and set(drawn.val) == set(uneven().val)
    assert short_classes(uneven(), "all") == {}


def test_classes_with_fewer_images_than_shots_are_named():
    assert short_classes(uneven(), 4) == {"owl": 1, "elk": 3} and short_classes(uneven(), 1) == {}
    with pytest.warns(
        UserWarning, match=r"few: 2 of 3 classes have fewer than 4 training .*used: owl \(1\), elk \(3\)$"
    ):
        warn_of_short_classes(uneven(), 4)
    with pytest.raises(InputError, match="few: class 'owl' has 1 training images, fewer than 4 shots; use --shots 1"):
        check_shots(uneven(), 4)


def test_few_shot_needs_training_images():
    with pytest.raises(InputError, match="v2 has no training images: it can only be tested on"):
        Dataset("v2", ("owl", "fox"), (), (), (Sample(Blank("o"), 0),)).few_shot(1, seed=1)


def test_impossible_halves_are_refused():
    one = Dataset("one", ("owl",), (Sample(Blank("o"), 0),), (), ())
    with pytest.raises(InputError, match="one has 1 classes, too few to divide: its base classes would be 1"):
        one.half("base")
    three = Dataset("three", ("owl", "fox", "cat"), (), (), ())
    assert three.half("base").classnames == ("owl", "fox")
    with pytest.raises(InputError, match="its new classes would be 1, and every accuracy 100 %"):
        three.half("new")
    with pytest.raises(InputError, match="choose one of all, base, new"):
        one.half("old")  # pyright: ignore[reportArgumentType]
