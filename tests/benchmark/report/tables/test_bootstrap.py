"""Paired differences to one method, compared with every possible resample and closed cases, and their renderings."""

from __future__ import annotations

import io
import json
import random
import re
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from gopro.benchmark.report.tables.bootstrap import reference
from gopro.benchmark.report.tables.latex import latex
from gopro.benchmark.report.tables.markdown import markdown
from gopro.benchmark.report.tables.protocol_tables import tables
from gopro.benchmark.report.tables.table import AVERAGE, Difference, Differences, Table
from gopro.benchmark.report.tables.terminal import rich_table
from gopro.errors import InputError

Row = dict[str, Any]
EXAMPLE = Path(__file__).resolve().parents[4] / "docs" / "example" / "results.jsonl"


def result(method: str, data: str, seed: int, accuracy: float, classes: str = "all", **other: Any) -> Row:
    """A row of few-shot, or of base-to-new where `classes` is a half; zeroshot learns from no images."""
    row = {"protocol": "few-shot" if classes == "all" else "base-to-new", "source": data, "data": data}
    row |= {"method": method, "backbone": "emoji", "shots": 16, "seed": seed, "classes": classes, "accuracy": accuracy}
    if method.startswith("zeroshot"):
        row |= {"shots": 0, "seed": 0}
    return {**row, **other}


def grid(method: str, figures: Mapping[str, Sequence[float]], **other: Any) -> list[Row]:
    """A few-shot accuracy for each data set and each of the seeds 1, 2, ..."""
    return [
        result(method, data, seed, accuracy, **other)
        for data, accuracies in figures.items()
        for seed, accuracy in enumerate(accuracies, 1)
    ]


def halves(method: str, figures: Mapping[str, Sequence[tuple[float, float]]]) -> list[Row]:
    """Base and new for each data set and each of the seeds 1, 2, ..."""
    return [
        result(method, data, seed, accuracy, half)
        for data, pairs in figures.items()
        for seed, pair in enumerate(pairs, 1)
        for half, accuracy in zip(("base", "new"), pair, strict=True)
    ]


def compared(rows: Sequence[Row], against: str = "gopro") -> Differences:
    """Return the differences of the one table that the rows give."""
    [table] = tables(rows, against)
    assert table.differences is not None
    return table.differences


def interval(difference: Difference | None) -> tuple[float, float]:
    assert difference is not None
    assert difference.interval is not None
    return difference.interval


# Intervals


def test_intervals_are_the_quantiles_of_every_resample_of_data_sets_and_of_seeds() -> None:
    drawn = random.Random(0)
    ours, theirs = (
        {data: [(drawn.uniform(20, 90), drawn.uniform(20, 90)) for _ in range(3)] for data in ("a", "b", "c")}
        for _ in range(2)
    )

    def averages(cells: Mapping[str, Sequence[tuple[float, float]]], datasets: Any, seeds: Any) -> list[float]:
        by_seed = []
        for seed in seeds:
            base, new = (fmean(cells[data][seed][half] for data in datasets) for half in (0, 1))
            by_seed.append((base, new, 2 * base * new / (base + new)))
        return [fmean(column) for column in zip(*by_seed, strict=True)]

    every = np.array(
        [
            np.subtract(averages(ours, datasets, seeds), averages(theirs, datasets, seeds))
            for datasets in product("abc", repeat=3)
            for seeds in product(range(3), repeat=3)
        ]
    )
    comparison = compared(halves("coop", ours) + halves("gopro", theirs))
    assert comparison.columns == ("Base", "New", "HM")
    mean = np.subtract(averages(ours, "abc", range(3)), averages(theirs, "abc", range(3)))
    for column, difference in enumerate(comparison.lines["coop"]):
        assert difference is not None
        assert difference.mean == pytest.approx(mean[column])
        low, high = interval(difference)
        # Of 10,000 resamples four standard errors about 2.5 % are 0.6 %.
        for end, around in ((low, (1.9, 3.1)), (high, (96.9, 98.1))):
            below, above = np.percentile(every[:, column], around)
            assert below - 1e-9 <= end <= above + 1e-9
            assert above - below < (high - low) / 5


def test_a_constant_difference_has_an_interval_without_width() -> None:
    theirs = {data: [(50.0 + 3 * seed, 40.0 - seed) for seed in range(4)] for data in "abc"}
    ours = {data: [(base - 2, new + 5) for base, new in pairs] for data, pairs in theirs.items()}
    base, new, _ = compared(halves("coop", ours) + halves("gopro", theirs)).lines["coop"]
    assert base is not None and new is not None
    assert (base.mean, *interval(base)) == pytest.approx((-2, -2, -2))
    assert (new.mean, *interval(new)) == pytest.approx((5, 5, 5))
    assert base.excludes_zero and new.excludes_zero


def test_equal_methods_have_an_interval_of_0() -> None:
    figures = {"a": [50.1, 60.3, 70.7], "b": [33.3, 44.4, 55.5]}
    [same] = compared(grid("coop", figures) + grid("gopro", figures)).lines["coop"]
    assert same is not None
    assert (same.mean, same.interval, same.excludes_zero) == (0, (0, 0), False)


def test_an_end_that_prints_as_0_does_not_exclude_0() -> None:
    assert not Difference(0.1, (0.004, 0.2), 2).excludes_zero
    assert Difference(0.1, (0.006, 0.2), 2).excludes_zero
    assert not Difference(-0.1, (-0.2, -0.004), 2).excludes_zero
    assert Difference(-0.1, (-0.2, -0.006), 2).excludes_zero
    assert not Difference(5.0, None, 2).excludes_zero


def test_symmetrical_noise_gives_a_symmetrical_interval_about_0() -> None:
    [noise] = compared(
        grid("coop", {"a": [51, 49], "b": [49, 51]}) + grid("gopro", {"a": [50, 50], "b": [50, 50]})
    ).lines["coop"]
    assert noise is not None and not noise.excludes_zero
    assert noise.mean == pytest.approx(0)
    assert interval(noise) == pytest.approx((-1, 1))  # both data sets and both seeds alike: 1 of 8 resamples each


@given(st.tuples(*[st.floats(1, 99)] * 8))
@settings(max_examples=20)
def test_swapping_the_methods_mirrors_differences_and_intervals(drawn: tuple[float, ...]) -> None:
    rows = halves("coop", {"a": [drawn[0:2], drawn[2:4]]}) + halves("gopro", {"a": [drawn[4:6], drawn[6:8]]})
    for one, other in zip(compared(rows).lines["coop"], compared(rows, "coop").lines["gopro"], strict=True):
        assert one is not None and other is not None
        assert one.mean == pytest.approx(-other.mean)
        assert interval(one) == pytest.approx([-end for end in reversed(interval(other))])


def example() -> list[Row]:
    return [json.loads(line) for line in EXAMPLE.read_text(encoding="utf-8").splitlines()]


def averages(table: Table, method: str) -> list[float]:
    """Return the averages that a table prints for a method, or its only data set's values."""
    [line] = [line for line in table.blocks[-1].lines if line.label == method]
    own = line.cells[-1:] if table.columns[-1] == AVERAGE else line.cells
    return [cell.measured.mean for cell in own]


@pytest.mark.parametrize("against", ["gopro", "coop", "zeroshot"])
def test_differences_are_those_of_the_averages_that_the_tables_print(against: str) -> None:
    slow = ("gopro-paper", "gopro-release")  # they have one seed
    rows = [row for row in example() if row["seed"] <= 2 and row["method"] not in slow]  # which all others have
    made = tables(rows, against)
    assert [table.protocol for table in made] == ["base-to-new", "cross-dataset", "domain-generalization", "few-shot"]
    for table in made:
        assert table.differences is not None
        others = {row["method"] for row in rows if row["protocol"] == table.protocol} - {against}
        assert {"zeroshot", "coop", "gopro"} - {against} <= others == set(table.differences.lines)
        for method, line in table.differences.lines.items():
            theirs = np.subtract(averages(table, method), averages(table, against))
            assert [difference.mean for difference in line if difference] == pytest.approx(theirs)
            if method.startswith("zeroshot") and against.startswith("zeroshot"):  # each run once: one seed, no interval
                assert all(cell is not None and cell.interval is None for cell in line)
                continue
            assert all(interval(cell)[0] <= mean <= interval(cell)[1] for cell, mean in zip(line, theirs, strict=True))


@given(st.integers(0))
@settings(max_examples=10)
def test_order_of_rows_changes_nothing(seed: int) -> None:
    rows = example()
    before = [table.differences for table in tables(rows, "gopro")]
    random.Random(seed).shuffle(rows)
    for one, other in zip(before, (table.differences for table in tables(rows, "gopro")), strict=True):
        assert one is not None and other is not None
        assert (one.lines, one.columns, set(one.notes)) == (other.lines, other.columns, set(other.notes))


def test_coverage_of_intervals_is_near_nominal_and_far_above_that_of_resampled_cells() -> None:
    """Each method differs from gopro by 0 on average, with random effects of data set and seed."""
    drawn = np.random.default_rng(5)
    rounds, datasets, seeds = 100, 5, 5
    rows = grid("gopro", {f"d{data}": [50.0] * seeds for data in range(datasets)})
    by_cells = 0
    for number in range(rounds):
        differs = drawn.normal(0, 1.5, (datasets, 1)) + drawn.normal(0, 0.4, (1, seeds))
        differs = differs + drawn.normal(0, 0.7, (datasets, seeds))
        rows += grid(f"m{number}", {f"d{data}": list(50 + line) for data, line in enumerate(differs)})
        cells = drawn.choice(differs.ravel(), (1000, differs.size)).mean(axis=1)
        low, high = np.percentile(cells, [2.5, 97.5])
        by_cells += low <= 0 <= high
    held = sum(not line[0].excludes_zero for line in compared(rows).lines.values() if line[0])
    assert 0.8 < held / rounds < 0.97
    assert by_cells / rounds < 0.7


# Pairing


def test_a_method_that_learns_from_no_images_is_paired_with_every_seed() -> None:
    gopro = {"a": [60.0, 70.0, 65.0], "b": [40.0, 44.0, 36.0]}
    unlearned = [result("zeroshot", "a", 0, 50), result("zeroshot", "b", 0, 30)]
    repeated = grid("coop", {"a": [50.0] * 3, "b": [30.0] * 3})
    comparison = compared(grid("gopro", gopro) + unlearned + repeated)
    assert comparison.lines["zeroshot"] == comparison.lines["coop"]
    assert not [note for note in comparison.notes if "without" in note]
    other = compared(grid("gopro", gopro) + unlearned, "zeroshot")
    assert interval(other.lines["gopro"][0]) == pytest.approx(
        [-x for x in reversed(interval(comparison.lines["coop"][0]))]
    )


def test_two_methods_that_learn_from_no_images_differ_without_an_interval() -> None:
    rows = [
        result(method, data, 0, 50 + place)
        for place, method in enumerate(("zeroshot", "zeroshot[x=1]"))
        for data in "ab"
    ]
    comparison = compared(rows, "zeroshot")
    assert comparison.lines == {"zeroshot[x=1]": (Difference(1, None, 2),)}
    assert comparison.notes == ("A difference from one seed has no interval.",)


def test_one_seed_gives_no_interval_with_a_note() -> None:
    comparison = compared(grid("coop", {"a": [50], "b": [60]}) + grid("gopro", {"a": [55, 0], "b": [61, 0]}))
    assert comparison.lines["coop"] == (Difference(-3, None, 2),)
    assert comparison.notes == (
        "A difference from one seed has no interval.",
        "coop: without seed 2, which not every data set has for both methods",
    )


def test_one_data_set_gives_an_interval_over_seeds_with_a_note() -> None:
    comparison = compared(grid("coop", {"a": [50, 52]}) + grid("gopro", {"a": [51, 50]}))
    assert interval(comparison.lines["coop"][0]) == pytest.approx((-1, 2))
    assert comparison.notes[1:] == ("The interval of a single data set covers seeds alone.",)


def test_results_that_one_method_lacks_are_left_out_of_both_with_a_note() -> None:
    gopro = {"a": [60.0, 70.0, 10.0], "b": [40.0, 44.0, 36.0], "c": [1.0, 1.0, 1.0]}
    coop = {"a": [61.0, 71.0, 99.0], "b": [42.0, 46.0], "d": [99.0]}
    comparison = compared(grid("gopro", gopro) + grid("coop", coop) + grid("maple", coop))
    without = compared(grid("gopro", {"a": [60, 70], "b": [40, 44]}) + grid("coop", {"a": [61, 71], "b": [42, 46]}))
    assert comparison.lines["coop"] == comparison.lines["maple"] == without.lines["coop"]
    assert comparison.notes[1:] == (
        "coop; maple: without c, on which the two methods share no seed",
        "coop; maple: without d, on which the two methods share no seed",
        "coop; maple: without seed 3, which not every data set has for both methods",
    )


def test_a_cell_with_one_half_is_left_out() -> None:
    gopro = {"a": [(60.0, 50.0), (62.0, 51.0)]}
    rows = halves("gopro", gopro) + halves("coop", {"a": [(61.0, 52.0)]}) + [result("coop", "a", 2, 99, "base")]
    comparison = compared(rows)
    assert [cell and cell.mean for cell in comparison.lines["coop"][:2]] == [1, 2]
    assert "coop: without seed 2, which not every data set has for both methods" in comparison.notes


def test_nothing_in_common_is_no_difference() -> None:
    rows = grid("gopro", {"a": [60, 70]}) + grid("coop", {"b": [60]}) + grid("maple", {"a": [50, 52]})
    comparison = compared(rows)
    assert comparison.lines["coop"] == (None,)
    assert "| coop | – |" in markdown(tables(rows, "gopro"))
    apart = compared(
        [*grid("gopro", {"a": [60, 61], "b": [60, 61]}), result("coop", "a", 1, 5), result("coop", "b", 2, 5)]
    )
    assert apart.lines["coop"] == (None,)
    assert apart.notes == ("coop: without seeds 1, 2, which not every data set has for both methods",)


def test_no_differences_without_the_method_or_without_others() -> None:
    assert [table.differences for table in tables(grid("coop", {"a": [1]}), "gopro")] == [None]
    assert [table.differences for table in tables(grid("gopro", {"a": [1]}), "gopro")] == [None]
    assert [table.differences for table in tables(grid("gopro", {"a": [1]}) + grid("coop", {"a": [1]}))] == [None]
    alone = grid("coop", {"a": [1]}, backbone="RN50:openai") + grid("gopro", {"a": [1]}) + grid("coop", {"a": [1]})
    assert [table.differences is not None for table in tables(alone, "gopro")] == [False, True]


def test_transfer_averages_over_the_targets_and_has_a_column_for_each_source() -> None:
    def rows(source: str, **figures: float) -> list[Row]:
        other = {"protocol": "cross-dataset", "source": source}
        return [
            row
            for data, difference in figures.items()
            for row in (
                *grid("gopro", {data: [50, 60]}, **other),
                *grid("coop", {data: [50 + difference, 60 + difference]}, **other),
            )
        ]

    one = compared(rows("a", a=40, b=1, c=3))
    assert one.columns == (AVERAGE,)
    assert [cell and cell.mean for cell in one.lines["coop"]] == [2]
    assert compared(rows("a", a=40, b=1)).columns == ("b",)
    two = compared(rows("a", a=40, b=1, c=3) + rows("b", b=40, a=5)[:-1])
    assert two.columns == ("from a", "from b")
    assert [cell and cell.mean for cell in two.lines["coop"]] == [2, 5]
    assert "coop, from b: without seed 2, which not every data set has for both methods" in two.notes
    assert [table.differences for table in tables(rows("a", a=40), "gopro")] == [None]


def test_domains_left_out_one_at_a_time_have_an_average() -> None:
    """It is that of one source with all of them as its targets, interval included."""

    def rows(method: str, source: str, target: str, *accuracies: float) -> list[Row]:
        return [
            result(method, target, seed, accuracy, protocol="domain-generalization", source=source)
            for seed, accuracy in enumerate(accuracies, start=1)
        ]

    figures = {"a": (10.0, 20.0, 25.0), "b": (60.0, 65.0, 40.0)}
    ours = [row for target, drawn in figures.items() for row in rows("coop", f"all but {target}", target, *drawn)]
    theirs = [row for target in figures for row in rows("gopro", f"all but {target}", target, 15, 30, 45)]
    left_out = compared([*ours, *theirs])
    assert left_out.columns == ("from all but a", "from all but b", AVERAGE)
    one = compared([{**row, "source": "c"} for row in (*ours, *theirs)])
    assert left_out.lines["coop"][-1] == one.lines["coop"][0] and interval(left_out.lines["coop"][-1])[0] < -10


def test_few_shot_has_a_column_for_each_number_of_shots() -> None:
    rows = [row for shots, lead in ((16, 4), (1, 1)) for row in grid("coop", {"a": [50, 50 + lead]}, shots=shots)]
    rows += [row for shots in (1, 16) for row in grid("gopro", {"a": [50, 50]}, shots=shots)]
    comparison = compared([*rows, result("zeroshot", "a", 0, 45)])
    assert comparison.columns == ("1 shot", "16 shots")
    assert [cell and cell.mean for cell in comparison.lines["coop"]] == [0.5, 2]
    assert [cell and cell.mean for cell in comparison.lines["zeroshot"]] == [-5, -5]


def test_the_method_to_compare_with() -> None:
    assert reference(["coop", "gopro"], None) == "gopro"
    assert reference(["coop", "gopro[con=0]"], None) is None
    assert reference(["coop", "gopro"], "coop") == "coop"
    with pytest.raises(InputError, match=r"--against maple: .* choose one of coop, gopro"):
        reference(iter(["coop", "gopro", "coop"]), "maple")


# Renderings


def ablation() -> list[Row]:
    """Base-to-new of gopro, of a variant that is worse on new classes, and of one that is equal."""
    gopro = {data: [(70.0 + seed, 50.0) for seed in range(3)] for data in ("pets", "cars")}
    rows = halves("gopro", gopro)
    for method, cost in (("gopro[con=0]", 1.5), ("gopro[anchor=0;sem=0]", 0.0)):
        rows += halves(method, {data: [(b, n - cost) for b, n in pairs] for data, pairs in gopro.items()})
    return rows


def test_markdown_by_hand() -> None:
    text = markdown(tables(ablation(), "gopro"))
    assert text.count("\n## ") + text.startswith("## ") == 1
    assert text.partition("\n### ")[2].splitlines() == [
        "Difference from gopro",
        "",
        "Each method's average minus that of gopro, in percentage points, paired by data set and seed. A "
        "method with a positive difference is better than gopro.",
        "",
        "| Method | Base | New | HM |",
        "|---|--:|--:|--:|",
        "| gopro[con=0] | 0.00 [0.00, 0.00] | **−1.50 [−1.50, −1.50]** | **−1.05 [−1.06, −1.03]** |",
        "| gopro[anchor=0;sem=0] | 0.00 [0.00, 0.00] | 0.00 [0.00, 0.00] | 0.00 [0.00, 0.00] |",
        "",
        "- Brackets hold the 95 % bootstrap interval over 10,000 resamples of data sets and, independently, of seeds. "
        "A difference is bold if its interval excludes 0.",
    ]


def test_latex_is_a_table_of_its_own() -> None:
    text = latex(tables(ablation(), "gopro[con=0]"))
    assert text.count(r"\begin{table}") == text.count(r"\end{table}") == 2
    own = text.split(r"\begin{table}")[-1]
    assert r"\caption{Base-to-new: emoji, 16 shots. Difference from gopro{[}con=0]. " in own
    assert r"\begin{tabular}{@{}lrrr@{}}" in own
    line = r"gopro & 0.00{\tiny\enspace {[}0.00, 0.00]} & \textbf{+1.50}{\tiny\enspace {[}+1.50, +1.50]} & "
    assert line in own
    assert own.count(r"\midrule") == 1
    assert text.isascii()
    assert text.count("{") == text.count("}")
    assert "differences" not in latex(tables(ablation()))


def test_latex_of_many_columns_has_intervals_below() -> None:
    rows = [
        row for shots in (1, 2, 4, 8, 16) for m in ("gopro", "coop") for row in grid(m, {"a": [10, 20]}, shots=shots)
    ]
    own = latex(tables(rows, "gopro")).split(r"\begin{table*}")[-1]
    assert own.count(r"0.00 \\ {\tiny\enspace {[}0.00, 0.00]}\end{tabular}") == 5


def test_terminal_fits_base_to_new_into_80_columns_and_marks_by_weight_and_sign() -> None:
    def shown(rows: Sequence[Row]) -> str:
        console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard", highlight=False)
        [table] = tables(rows, "gopro")
        console.print(rich_table(table))
        assert isinstance(console.file, io.StringIO)
        return console.file.getvalue()

    text = shown(ablation())
    assert "…" not in text
    assert "\x1b[1m−1.50 [−1.50, −1.50]\x1b[0m" in text
    assert "gopro[con=0]" in text and "gopro[anchor=0;" in text
    assert "\x1b[1m0.00" not in text
    rows = [
        row for shots in (1, 2, 4, 8, 16) for m in ("gopro", "coop") for row in grid(m, {"a": [10, 20]}, shots=shots)
    ]
    text = shown(rows)
    assert "…" not in text
    assert re.search(r"(\[0\.00, 0\.00\] *){5}", text)
