"""The comparison of a backbone with the same one in CLIP's cone."""

from pathlib import Path

from pytest import CaptureFixture

from tools.cone import figures, main, table


def row(protocol: str, data: str, classes: str, accuracy: float) -> dict[str, object]:
    return {
        "method": "coop",
        "protocol": protocol,
        "source": "a",
        "data": data,
        "classes": classes,
        "accuracy": accuracy,
    }


def test_the_table_has_means_over_seeds_and_targets_and_their_differences() -> None:
    rows = [
        row("base-to-new", "a", half, value) for half, value in (("base", 80), ("new", 40), ("base", 60), ("new", 60))
    ]
    rows += [row("cross-dataset", data, "all", value) for data, value in (("a", 99), ("b", 30), ("c", 40))]
    rows += [row("domain-generalization", data, "all", value) for data, value in (("a", 99), ("b", 21))]
    outside, inside = figures(rows), figures([{**r, "accuracy": r["accuracy"] / 2} for r in rows])
    hm = (2 * 80 * 40 / 120 + 60) / 2
    assert outside["coop"]["HM"] == hm
    assert table(outside, inside).splitlines()[-1] == (
        f"| `coop` | 35.0 (-35.0) | 25.0 (-25.0) | {hm / 2:.1f} ({-hm / 2:+.1f}) | 17.5 (-17.5) | 10.5 (-10.5) |"
    )


def test_zero_shot_accuracies_are_the_same_in_the_cone(tmp_path: Path, capsys: CaptureFixture[str]) -> None:
    main(output=tmp_path, data="photos", methods=("zeroshot",))
    without, inside, *_, row = capsys.readouterr().out.splitlines()
    assert "images 0.05, class texts 0.04" in without and "images 0.50, class texts 0.85" in inside
    assert row.startswith("| `zeroshot` | ") and row.count("(+0.0)") == 3
    main(output=tmp_path, data="photos", methods=("zeroshot",))  # from the results of the first
    assert capsys.readouterr().out.splitlines()[-1] == row
