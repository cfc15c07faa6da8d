"""A benchmark on a folder whose classes differ in size, from planning to the report."""

import json
from pathlib import Path

import pytest

from gopro.benchmark.report.page import write_report
from gopro.benchmark.runner import benchmark
from gopro.runs.config import BenchmarkConfig
from tests.support.folders import make_folders


def test_up_to_so_many_shots_or_all_are_compared_and_reported(tmp_path: Path) -> None:
    root, output = make_folders(tmp_path / "mine", ["cat", "dog"], images=8), tmp_path / "out"
    make_folders(root, ["fox"], images=3)
    config = BenchmarkConfig(
        data=(str(root),),
        methods=("zeroshot", "coop"),
        backbones=("emoji",),
        shots=(4, "all"),
        seeds=(1,),
        epochs=1,
        workers=0,
        output=output,
    )
    with pytest.warns(UserWarning, match=r"mine: 1 of 3 classes have fewer than 4 training images, .* fox \(2\)"):
        result = benchmark("few-shot", config)
    assert not result.failures
    assert [(row["method"], row["shots"]) for row in result.rows] == [("zeroshot", 0), ("coop", 4), ("coop", "all")]
    digests = [json.loads(path.read_text())["digests"] for path in sorted(output.glob("runs/*/training_images.json"))]
    assert [len(listed) for listed in digests] == [10, 10]  # 4 of each class are all of them but fox's 2
    with pytest.warns(UserWarning, match="fewer than 4"):
        assert len(benchmark("few-shot", config).rows) == 3  # the same rows, reused
    write_report(output)
    page = (output / "report.html").read_text()
    assert "accuracy with all training images" in page and "with all training images" in page
    assert "| method | 4 | all |" in (output / "tables.md").read_text().lower()
