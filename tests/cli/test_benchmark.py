"""`gopro benchmark` and `gopro report`."""

import json
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest

from gopro import cli
from gopro.benchmark.protocols import base_to_new
from gopro.runs.config import BenchmarkConfig
from tests.support.pages import ROOT, blocks

SMALL = "--data emoji-activities --methods zeroshot coop --seeds 1 2 --shots 1 --epochs 1 --batch 32 --workers 0"


@dataclass(frozen=True)
class Sweep:
    folder: Path
    out: str
    err: str


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Sweep:
    folder = tmp_path_factory.mktemp("cli") / "results"
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        patch.setenv("COLUMNS", "200")
        cli.main(f"benchmark base-to-new {SMALL} --output {folder}".split())
    return Sweep(folder, out.getvalue(), err.getvalue())


def test_benchmark_reports_its_progress_and_shows_the_table(sweep: Sweep, gopro) -> None:
    lines = sweep.err.splitlines()
    assert lines[0] == "3 runs to do"
    assert lines[1] == "0 of 3 runs done; started zeroshot on emoji-activities"
    assert lines[2] == "1 of 3 runs done; started coop on emoji-activities (1 shot, seed 1)"
    assert lines[3].startswith("2 of 3 runs done, about ")
    assert lines[3].endswith(" left; started coop on emoji-activities (1 shot, seed 2)")
    assert "Base" in sweep.out and "zeroshot" in sweep.out and "coop" in sweep.out
    assert f"6 evaluations in {sweep.folder}/results.jsonl" in sweep.out
    assert f"Next: gopro report {sweep.folder}" in sweep.out
    code, out, err = gopro(*f"benchmark base-to-new {SMALL} --output {sweep.folder}".split())
    assert code == 0 and err == "0 runs to do, 3 already done\n" and out == sweep.out


def test_report_writes_a_page_tables_and_plots(sweep: Sweep, gopro) -> None:
    code, out, _ = gopro("report", sweep.folder)
    assert code == 0 and out.startswith(f"Report: {sweep.folder / 'report.html'}; ") and len(out.splitlines()) == 1
    assert {"report.html", "tables.md", "tables.tex", "plots"} <= {path.name for path in sweep.folder.iterdir()}
    assert "Difference from" not in (sweep.folder / "tables.md").read_text(encoding="utf-8")  # gopro was not run
    code, _, err = gopro("report", sweep.folder / "runs")
    assert code == 2 and "results.jsonl" in err and len(err.splitlines()) == 1


def test_against_names_the_method_to_compare_with(sweep: Sweep, tmp_path: Path, gopro) -> None:
    code, out, _ = gopro(*f"benchmark base-to-new {SMALL} --output {sweep.folder} --against zeroshot".split())
    assert code == 0 and "Difference from zeroshot" in out and re.search(r"coop +[+−]?\d+\.\d\d \[", out)
    code, _, _ = gopro("report", sweep.folder, "--against", "zeroshot")
    assert code == 0 and "### Difference from zeroshot" in (sweep.folder / "tables.md").read_text(encoding="utf-8")
    code, _, err = gopro("report", sweep.folder, "--against", "gopro")
    assert code == 2 and "zeroshot, coop" in err and len(err.splitlines()) == 1
    code, _, err = gopro(*f"benchmark base-to-new {SMALL} --output {tmp_path / 'new'} --against maple".split())
    assert code == 2 and "against maple" in err and len(err.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_failed_runs_are_reported_with_exit_code_1(two_classes: Path, tmp_path: Path, gopro) -> None:
    (two_classes / "red_things" / "3.png").write_bytes(b"broken")
    settings = "--methods coop --shots 3 --seeds 1 --epochs 1 --workers 0"
    code, _, err = gopro(*f"benchmark few-shot --data {two_classes} {settings} --output {tmp_path / 'o'}".split())
    assert code == 1 and "coop on " in err and "red_things/3.png" in err and "1 run failed" in err
    assert "Traceback" not in err and json.loads((tmp_path / "o" / "failures.jsonl").read_text())["method"] == "coop"


def test_reports_of_several_folders_are_joined(sweep: Sweep, tmp_path: Path, gopro) -> None:
    """The jobs of a SLURM array have a folder each."""
    code, out, _ = gopro("report", sweep.folder, "--output", tmp_path / "one")
    assert code == 0 and "2 seeds" in (tmp_path / "one" / "report.html").read_text()
    rows = (sweep.folder / "results.jsonl").read_text().splitlines(keepends=True)
    for seed in (1, 2):
        job = tmp_path / "array" / str(seed)
        job.mkdir(parents=True)
        (job / "runs").symlink_to(sweep.folder / "runs")
        (job / "results.jsonl").write_text("".join(row for row in rows if json.loads(row)["seed"] in (0, seed)))
    code, out, _ = gopro("report", tmp_path / "array" / "1", tmp_path / "array" / "2")
    page = tmp_path / "array" / "report" / "report.html"
    assert code == 0 and "array/report/report.html" in out and "2 seeds" in page.read_text()
    assert (page.parent / "tables.md").read_text() == (tmp_path / "one" / "tables.md").read_text()


def test_the_file_of_a_sweep_makes_a_row_of_each_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gopro
) -> None:
    [(_, text)] = blocks(ROOT / "docs" / "benchmark.md", "yaml")
    (tmp_path / "sweep.yaml").write_text(text)
    given: list[BenchmarkConfig] = []
    monkeypatch.setattr("gopro.cli.benchmark.run_protocol", lambda protocol, config, against: given.append(config))
    code, _, err = gopro("benchmark", "base-to-new", "--config", tmp_path / "sweep.yaml", "--output", tmp_path / "out")
    assert code == 0, err
    runs = base_to_new(given[0])
    recipes = {run.train.method: run.made_with["recipe"] for run in runs if run.train.shots == 4}
    assert {key: (recipe["lr"], recipe["epochs"], recipe["weight_decay"]) for key, recipe in recipes.items()} == {
        "gopro": (1e-3, 5, recipes["gopro"]["weight_decay"]),
        "gopro[lr=0.01,epochs=10]": (0.01, 10, recipes["gopro"]["weight_decay"]),
        "gopro[lr=0.01,epochs=10,weight_decay=0]": (0.01, 10, 0),
    }
    assert len({run.name for run in runs}) == len(runs) == 1 + 3 * 2 * 3
