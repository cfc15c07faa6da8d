"""Tables in documents agree with the results they were made from."""

import re
from pathlib import Path

import pytest

from gopro.benchmark.report.write import write_tables
from gopro.benchmark.suites import SUITES
from gopro.runs.results import Results
from tests.support.pages import ROOT
from tools.benchmark_tables import EXAMPLE, MIXED, PAGES, PARTS, PHOTOS, UNLABELED, current, full_table, parts_table


@pytest.mark.parametrize("example", [EXAMPLE, PHOTOS, MIXED, UNLABELED], ids=lambda folder: folder.name)
def test_an_examples_tables_are_those_of_its_results(example: Path, tmp_path: Path) -> None:
    [markdown, _] = write_tables(tmp_path, Results(example / "results.jsonl").rows, "gopro")
    assert markdown.read_text(encoding="utf-8") == (example / "tables.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES)
def test_a_pages_tables_are_those_of_its_results(page: str) -> None:
    assert (ROOT / page).read_text(encoding="utf-8") == current(page), "run python -m tools.benchmark_tables"


def test_the_parts_are_compared_seed_by_seed() -> None:
    rows = [row for row in Results(PARTS / "results.jsonl").rows if row["protocol"] == "domain-generalization"]

    def averages(method: str) -> dict[object, float]:
        """Return the average over the targets, by seed."""
        found = [row for row in rows if row["method"] == method and row["data"] != row["source"]]
        seeds = {row["seed"] for row in found}
        return {seed: sum(row["accuracy"] for row in found if row["seed"] == seed) / 3 for seed in seeds}

    whole, without = averages("gopro"), averages("gopro[probe=false]")
    mean = sum(without[seed] - whole[seed] for seed in without) / len(without)
    [line] = [line for line in parts_table(rows).splitlines() if "`probe=false`" in line]
    assert f"{mean:+.1f}".replace("-", "−") in line


def test_the_full_table_has_the_averages_of_the_reports_tables() -> None:
    markdown = (EXAMPLE / "tables.md").read_text(encoding="utf-8").replace("**", "")
    to_new, others, styles = re.split(r"^## ", markdown, flags=re.MULTILINE)[1:4]
    for line in full_table(Results(EXAMPLE / "results.jsonl").rows).splitlines()[2:]:
        cells = [re.sub(r"\*\*| [−+]$", "", cell.strip()) for cell in line.strip("|").split("|")]
        method, *three, cross, domains = cells
        assert f"| average | {method} | {' | '.join(three)} |" in to_new
        for average, table in ((cross, others), (domains, styles)):
            pattern = rf"^\| {re.escape(method)} \|.* {re.escape(average)} \|$"
            assert not average or re.search(pattern, table, re.MULTILINE)


def test_the_paper_needs_as_many_runs_as_the_page_says() -> None:
    paper = SUITES["paper"]
    learned, seeds = len(paper.methods) - 1, len(paper.seeds)
    counts = {
        "base-to-new": (len(paper.base_to_new), len(paper.base_to_new) * learned * seeds),
        "cross-dataset": (1 + len(paper.cross_dataset[1]), learned * seeds),
        "domain-generalization": (1 + len(paper.domain_generalization[1]), learned * seeds),
    }
    page = (ROOT / "docs" / "reproduce.md").read_text(encoding="utf-8")
    for protocol, (without, trained) in counts.items():
        assert f"| `{protocol}` | {without + trained} | {trained}" in page
