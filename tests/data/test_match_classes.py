"""Test images labelled by the classes of another data set."""

from gopro.data.dataset import Dataset, Sample
from gopro.data.match_classes import match_classes
from tests.data.test_dataset import Blank


def test_names_match_in_any_spelling_and_others_are_counted() -> None:
    names = ("Snowy owl", "wolf", "red_fox", "polish", "Polish")
    test = [Sample(Blank(f"{label}/{i}"), label) for label in range(5) for i in range(label + 1)]
    matched = match_classes(Dataset("other", names, (), (), tuple(test)), ("red fox", "snowy_owl", "elk", "Polish"))
    assert matched.dataset.classnames == ("red fox", "snowy_owl", "elk", "Polish")
    labels = [(sample.image.name[0], sample.label) for sample in matched.dataset.test]
    assert labels == [("2", 0)] * 3 + [("0", 1)] + [("3", 3)] * 4 + [("4", 3)] * 5
    assert matched.unknown == {"wolf": 2} and matched.absent == ("elk",)


def test_a_class_of_exactly_the_name_comes_first() -> None:
    test = (Sample(Blank("a"), 0), Sample(Blank("b"), 1))
    matched = match_classes(
        Dataset("other", ("Polish", "polish"), (), (), test), ("polish", "Polish", "missile", "missile")
    )
    assert [sample.label for sample in matched.dataset.test] == [0, 1]
    assert [sample.image.name for sample in matched.dataset.test] == ["b", "a"]
