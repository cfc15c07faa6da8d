"""The cost of each method."""

import pytest

from benchmarks import cost

CLASSES, SHOTS = 3, 2


@pytest.fixture(scope="module")
def report() -> dict[str, object]:
    return cost.measure(["emoji"], ["zeroshot", "tip-adapter-f", "maple", "gopro"], CLASSES, SHOTS, runs=1)


@pytest.fixture(scope="module")
def costs(report: dict[str, list[dict]]) -> dict[str, cost.Cost]:
    return {row["method"]: cost.Cost(**row) for row in report["costs"]}


def test_what_learns_nothing_costs_no_training(costs: dict[str, cost.Cost]) -> None:
    assert (costs["zeroshot"].parameters, costs["zeroshot"].training) == (0, 0)


def test_steps_are_those_of_the_recipe(costs: dict[str, cost.Cost]) -> None:
    assert costs["gopro"].steps == 5 * 2  # 6 images in batches of 4, the incomplete one too
    assert costs["tip-adapter-f"].steps == 20  # all images fit into one batch


def test_closed_forms_are_charged_for_the_images_that_they_encode(costs: dict[str, cost.Cost]) -> None:
    images = costs["zeroshot"].image - costs["zeroshot"].head
    assert costs["tip-adapter-f"].closed > 0.5 * 10 * CLASSES * SHOTS * images  # ten random views of each
    assert costs["maple"].closed == 0


def test_a_learned_tower_costs_no_less_than_the_plain_one(costs: dict[str, cost.Cost]) -> None:
    assert costs["maple"].image > 0.5 * costs["zeroshot"].image


def test_methods_that_the_backbone_cannot_carry_are_left_out() -> None:
    report = cost.measure(["photo"], ["maple", "zeroshot"], CLASSES, SHOTS, runs=1)
    assert [row["method"] for row in report["costs"]] == ["zeroshot"]


def test_the_table_has_the_accuracy_of_the_examples(report: dict[str, object]) -> None:
    [line] = [line for line in cost.table(report).splitlines() if line.startswith("| zeroshot")]
    assert line.split(" | ")[1] == cost.harmonic_means("emoji")["zeroshot"]
    assert cost.harmonic_means("ViT-B-16") == {}
