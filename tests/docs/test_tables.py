"""Tables in documents agree with the results they were made from."""

import re
from pathlib import Path

from gopro.benchmark.report.write import write_tables
from gopro.benchmark.suites import SUITES
from gopro.runs.results import Results
from tests.support.pages import ROOT


def rows(page: Path) -> dict[str, list[str]]:
    """Return the cells of each method in a page's table, without the marks for the best value and for intervals."""
    text = page.read_text(encoding="utf-8")
    table = text[text.index("| | Base | New | HM |") :].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {name: [re.sub(r"\*\*| [−+]$", "", cell) for cell in rest] for name, *rest in cells[2:]}


def test_the_benchmark_page_agrees_with_its_results_file(tmp_path: Path) -> None:
    example = ROOT / "docs" / "example"
    results = Results(example / "results.jsonl").rows
    [markdown, _] = write_tables(tmp_path, results, "gopro")
    text = markdown.read_text(encoding="utf-8")
    assert text == (example / "tables.md").read_text(encoding="utf-8")
    to_new, others, styles = re.split(r"^## ", text.replace("**", ""), flags=re.MULTILINE)[1:4]
    for method, (*three, cross, domains) in rows(ROOT / "docs" / "benchmark.md").items():
        assert f"| average | {method} | {' | '.join(three)} |" in to_new
        assert re.search(rf"^\| {re.escape(method)} \|.* {re.escape(cross)} \|$", others, re.MULTILINE)
        elsewhere = "mmrl[fuse=false]" if method == "mmrl" else method
        assert re.search(rf"^\| {re.escape(elsewhere)} \|.* {re.escape(domains)} \|$", styles, re.MULTILINE)


def test_the_readme_repeats_the_means_of_the_benchmark_page() -> None:
    def means(page: Path) -> dict[str, list[str]]:
        return {name: [cell.partition(" ")[0] for cell in cells] for name, cells in rows(page).items()}

    ours, whole = means(ROOT / "README.md"), means(ROOT / "docs" / "benchmark.md")
    assert {"zeroshot", "coop", "gopro"} < set(ours) <= set(whole)
    assert all(ours[name] == whole[name] for name in ours)


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
