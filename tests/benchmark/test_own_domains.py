"""Domain generalization on folders of one's own, from planning to the report."""

from pathlib import Path

import pytest

from gopro.benchmark.report.page import write_report
from gopro.benchmark.runner import benchmark
from gopro.errors import InputError
from gopro.runs.config import TransferConfig
from tests.support.folders import DOMAINS, make_folders


def config(root: Path, output: Path) -> TransferConfig:
    return TransferConfig(
        source=str(root / "photo"),
        targets=(str(root / "photo"), f"{root}/sketch/"),  # as a shell writes mine/*/
        methods=("zeroshot", "coop"),
        backbones=("emoji",),
        shots=(1,),
        seeds=(1,),
        epochs=1,
        workers=0,
        output=output,
    )


def test_all_images_of_a_target_domain_are_tested_and_reported(tmp_path: Path) -> None:
    root, output = make_folders(tmp_path / "mine", DOMAINS), tmp_path / "out"
    rows = benchmark("domain-generalization", config(root, output)).rows
    tested = {(row["method"], row["data"]): row["n"] for row in rows}
    assert tested == {
        (method, data): n for method in ("zeroshot", "coop") for data, n in (("photo", 3), ("sketch", 12))
    }
    assert [path.parent.name for path in root.rglob("split_gopro.json")] == ["photo"]
    assert len(benchmark("domain-generalization", config(root, output)).rows) == 4  # the same rows, reused
    write_report(output)
    page = (output / "report.html").read_text()
    assert page.count("data:image/webp") > 1 and "has changed since" not in page


def test_a_folder_is_tested_over_the_classes_of_the_source(tmp_path: Path) -> None:
    """In any spelling, without those that the source lacks, and whether or not it has them all."""
    folders = [*DOMAINS[:3], "sketch/Cat", "sketch/dog", "sketch/wolf"]
    root, output = make_folders(tmp_path / "mine", folders), tmp_path / "out"
    with (
        pytest.warns(UserWarning, match=r"sketch/ has no images of fox; it is tested over all 3 classes of .*photo"),
        pytest.warns(UserWarning, match=r"sketch/: images of classes that .*photo lacks are left out: wolf \(4\)"),
    ):
        result = benchmark("domain-generalization", config(root, output))
    assert {(row["n"], row["class_count"]) for row in result.rows if row["data"] == "sketch"} == {(8, 3)}
    write_report(output)
    assert "has changed since" not in (output / "report.html").read_text()
    wrong = TransferConfig(source=str(root / "photo"), targets=(str(root / "birds"),), output=tmp_path / "out")
    make_folders(root, ["birds/owl", "birds/crow"])
    with pytest.raises(
        InputError, match=r"birds: none of its classes \(crow, owl\) is one of .*photo \(cat, dog, fox\)"
    ):
        benchmark("domain-generalization", wrong)


def test_a_target_may_hold_nothing_but_test(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "mine", [*DOMAINS[:3], "sketch/test/cat", "sketch/test/dog", "sketch/test/fox"])
    rows = benchmark("domain-generalization", config(root, tmp_path / "out")).rows
    assert {row["n"] for row in rows if row["data"] == "sketch"} == {12}
