"""Tables in documents agree with the results they were made from."""

import re
from pathlib import Path

from gopro.benchmark.report.write import write_tables
from gopro.benchmark.suites import SUITES
from gopro.runs.results import Results
from tests.support.pages import ROOT
from tools.benchmark_tables import EXAMPLE, PAGE, README, full_table, short_table, with_table


def test_the_tables_of_results_agree_with_the_results_file(tmp_path: Path) -> None:
    results = Results(EXAMPLE / "results.jsonl").rows
    [markdown, _] = write_tables(tmp_path, results, "gopro")
    assert markdown.read_text(encoding="utf-8") == (EXAMPLE / "tables.md").read_text(encoding="utf-8")
    for page, table in ((PAGE, full_table(results)), (README, short_table(results))):
        text = page.read_text(encoding="utf-8")
        assert text == with_table(text, table), f"{page.name}: run python -m tools.benchmark_tables"


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
