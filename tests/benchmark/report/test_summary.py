"""The headline of a table, and the chart beside it."""

from __future__ import annotations

from gopro.benchmark.report.summary import Headline
from gopro.benchmark.report.tables.mean_std import MeanStd


def headline(*methods: tuple[str, MeanStd], **halves: tuple[float, float]) -> Headline:
    return Headline("harmonic mean", "my-photos", methods, halves)


def test_summary_names_the_best_method_and_its_lead() -> None:
    zeroshot = ("zeroshot", MeanStd(50, None, 1))
    clear = headline(("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(65.5, 1, 3)), zeroshot, gopro=(75.2, 65.46))
    assert clear.claim() == "`gopro` is best on my-photos: 70.0 % harmonic mean"
    assert clear.detail() == (
        "Base 75.2, new 65.5; 4.5 points above `coop`. Zero-shot CLIP has 50.0 %, 20.0 points less."
    )
    alone = headline(zeroshot)
    assert alone.claim() == "`zeroshot` has 50.0 % harmonic mean on my-photos"
    assert alone.detail() == "It is the only method that was run."
    level = headline(("gopro", MeanStd(70.001, 1, 3)), ("coop", MeanStd(70.0, 1, 3)), zeroshot)
    assert level.claim() == "`gopro` and `coop` are level on my-photos: 70.0 % harmonic mean"
    assert level.detail() == "Zero-shot CLIP has 50.0 %, 20.0 points less."


def test_summary_says_how_far_seeds_support_the_lead() -> None:
    zeroshot = ("zeroshot", MeanStd(50, None, 1))

    def detail(*methods: tuple[str, MeanStd]) -> str:
        return headline(*methods).detail()

    # The difference of two means with standard deviations of 1 has one of √2.
    assert "no clear winner" in detail(("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(68.6, 1, 3)))
    assert "no clear winner" not in detail(("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(68.5, 1, 3)))
    assert "This is one seed each" in detail(("gopro", MeanStd(70, None, 1)), ("coop", MeanStd(60, None, 1)))
    assert "No trained method is better than zero-shot CLIP" in detail(zeroshot, ("coop", MeanStd(40, 1, 3)))
    # Zero-shot CLIP is the one with the plain prompt, and it is named once.
    ensemble = ("zeroshot[ensemble=80]", MeanStd(55, None, 1))
    assert "Zero-shot CLIP has 50.0 %" in detail(
        ("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(60, 1, 3)), ensemble, zeroshot
    )
    assert "Zero-shot CLIP has" not in detail(ensemble, zeroshot, ("coop", MeanStd(40, 1, 3)))
    assert "Zero-shot CLIP has" not in detail(ensemble, ("coop", MeanStd(52, 1, 3)), zeroshot)


def test_the_chart_has_the_best_methods_with_zero_shot_clip_and_gopro() -> None:
    few = headline(("coop", MeanStd(62, 3, 3)), ("zeroshot", MeanStd(50, None, 1))).ranking()
    assert [name for name, _ in few.methods] == ["coop", "zeroshot"]
    assert (few.left_out, few.top) == (0, 70)  # 62 + 3, to the next ten
    figures = [(f"own{index}", MeanStd(90 - index, None, 1)) for index in range(9)]
    figures += [("gopro", MeanStd(20, None, 1)), ("zeroshot", MeanStd(10, None, 1)), ("coop", MeanStd(5, None, 1))]
    many = headline(*figures).ranking()
    assert [name for name, _ in many.methods] == [*(f"own{index}" for index in range(6)), "gopro", "zeroshot"]
    assert (many.left_out, many.top) == (4, 90)
    assert headline(("coop", MeanStd(0, None, 1))).ranking().top == 10
