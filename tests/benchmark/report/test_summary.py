"""The result of a table in one sentence."""

from __future__ import annotations

from gopro.benchmark.report.mean_std import MeanStd
from gopro.benchmark.report.summary import Headline


def sentence(*methods: tuple[str, MeanStd]) -> str:
    return Headline("harmonic mean", "my-photos", methods).sentence()


def test_summary_names_the_best_method_and_its_lead() -> None:
    zeroshot = ("zeroshot", MeanStd(50, None, 1))
    clear = sentence(("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(65.5, 1, 3)), zeroshot)
    assert clear == (
        "`gopro` is best on my-photos: 70.0 % harmonic mean, 4.5 points above `coop`. Zero-shot CLIP has 50.0 %, 20.0 "
        "points less."
    )
    # The difference of two means with standard deviations of 1 has one of √2.
    assert "no clear winner" in sentence(("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(68.6, 1, 3)))
    assert "no clear winner" not in sentence(("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(68.5, 1, 3)))
    assert "This is one seed each" in sentence(("gopro", MeanStd(70, None, 1)), ("coop", MeanStd(60, None, 1)))
    assert "level" in sentence(("gopro", MeanStd(70.001, 1, 3)), ("coop", MeanStd(70.0, 1, 3)))
    assert "No trained method is better than zero-shot CLIP" in sentence(zeroshot, ("coop", MeanStd(40, 1, 3)))
    # Zero-shot CLIP is the one with the plain prompt, and it is named once.
    ensemble = ("zeroshot[ensemble=80]", MeanStd(55, None, 1))
    assert "Zero-shot CLIP has 50.0 %" in sentence(
        ("gopro", MeanStd(70, 1, 3)), ("coop", MeanStd(60, 1, 3)), ensemble, zeroshot
    )
    assert "Zero-shot CLIP has" not in sentence(ensemble, zeroshot, ("coop", MeanStd(40, 1, 3)))
    assert "Zero-shot CLIP has" not in sentence(ensemble, ("coop", MeanStd(52, 1, 3)), zeroshot)
    assert "the only method that was run" in sentence(zeroshot)
