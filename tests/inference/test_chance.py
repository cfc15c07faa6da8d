"""Warnings where zero-shot accuracy is little better than guessing."""

from fractions import Fraction
from itertools import accumulate
from math import comb

import pytest

from gopro.inference.chance import chance_warnings, near_chance


@pytest.mark.parametrize(("n", "classes"), [(1, 2), (12, 2), (40, 7), (300, 100), (2000, 7)])
def test_near_chance_is_what_an_exact_binomial_test_or_the_margin_says(n: int, classes: int) -> None:
    chance = Fraction(1, classes)
    ways = [comb(n, k) * (classes - 1) ** (n - k) for k in range(n + 1)]  # to guess k of n right, of classes ** n
    at_least = list(accumulate(reversed(ways)))[::-1]
    found = []
    for correct in range(n + 1):
        by_guessing = Fraction(at_least[correct], classes**n)
        kappa = (Fraction(correct, n) - chance) / (1 - chance)
        expected = correct < n and (by_guessing > Fraction(1, 100) or kappa < Fraction(1, 10))
        found.append(near_chance(100 * correct / n, n, classes))
        assert found[-1] == expected, correct
    assert found == sorted(found, reverse=True) and found[0]


def test_a_sweep_warns_once_for_each_backbone_and_data_set() -> None:
    row = {"method": "zeroshot", "backbone": "emoji", "data": "mine", "classes": "base", "n": 100}
    row |= {"accuracy": 99.0, "macro_accuracy": 14.0, "class_count": 7}
    rows = [
        row,
        {**row, "classes": "new"},
        {**row, "backbone": "photo", "classes": "all"},
        {**row, "data": "easy", "macro_accuracy": 90.0},
        {**row, "data": "trained", "method": "coop"},
        {key: value for key, value in row.items() if key != "class_count"} | {"data": "earlier version"},
    ]
    first, second = chance_warnings(rows, "--backbones")
    assert first.startswith("zero-shot accuracy on mine, base classes, is 14.0 %, where guessing among 7 classes gives")
    assert "trained on emoji drawings" in first and "stronger: --backbones ViT-B-16:openai" in first
    assert "for photographs: --backbones photo" in first and "for photographs" not in second
    assert second.startswith("zero-shot accuracy on mine is 14.0 %")
