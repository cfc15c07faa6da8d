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


def test_classes_that_a_domain_lacks_are_named(tmp_path: Path) -> None:
    root = make_folders(tmp_path / "mine", [*DOMAINS[:-1], "cartoon/cat", "cartoon/wolf"])
    with pytest.warns(UserWarning, match=r"sketch/ lacks fox of the 3 classes of .*photo; it is tested among"):
        result = benchmark("domain-generalization", config(root, tmp_path / "out"))
    assert {row["n"] for row in result.rows if row["data"] == "sketch"} == {8}
    wrong = TransferConfig(source=str(root / "photo"), targets=(str(root / "cartoon"),), output=tmp_path / "out")
    with pytest.raises(InputError, match="cartoon: has the class wolf"):
        benchmark("domain-generalization", wrong)
