"""What the documents tell people to type works."""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import gopro
from gopro import cli
from gopro.benchmark.report.write import write_tables
from gopro.cli import demo
from gopro.runs.results import Results

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(text: str) -> list[str]:
    lines = text.replace("\\\n", " ").splitlines()
    return [line.strip() for line in lines if line.strip().startswith("gopro ")]


def test_the_readmes_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    examples = blocks(ROOT / "README.md", "python")
    assert examples
    for example in examples:
        exec(compile(example, "README.md", "exec"), {})
    assert capsys.readouterr().out.count("%") == 2


def test_all_examples_of_using_a_run_work_one_after_the_other(tmp_path: Path, monkeypatch, capsys) -> None:
    """Commands run in this process, those with a pipe in a shell, as they are written."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "gopro").write_text(f'#!/bin/sh\nexec {sys.executable} -m gopro.cli "$@"\n')
    (tmp_path / "bin" / "gopro").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    page, namespace, codes = ROOT / "docs" / "use.md", {}, []
    examples = re.findall(r"```(python|sh)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for language, example in examples:
        if language == "python":
            exec(compile(example, "use.md", "exec"), namespace)
            continue
        for line in example.splitlines():
            if "|" in line:
                piped = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
                print(piped.stdout)
                codes.append(piped.returncode)
            else:
                codes.append(_code(shlex.split(line)[1:]))
    out = capsys.readouterr().out
    assert "images/broken.png: not an image" in out and out.count('"predictions"') == 1
    assert codes == [0, 1, 1, 0, 1]  # the broken image is reported; of a pipe, head's counts
    answers = (tmp_path / "answers.csv").read_text().splitlines()
    images = len(list((tmp_path / "images").iterdir())) - 1
    assert answers[0] == "path,rank,name,probability" and len(answers) == 1 + 5 * images
    assert sum(path.is_file() for path in (tmp_path / "sorted").rglob("*")) == images
    assert len(namespace["probabilities"]) == len(namespace["features"]) == images and namespace["likest"].is_file()


@pytest.mark.no_cover  # see test_export.py
def test_an_exported_file_is_used_as_the_page_says(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    text, namespace = (ROOT / "docs" / "export.md").read_text(encoding="utf-8").partition("## Measured")[0], {}
    for language, example in re.findall(r"```(python|sh)\n(.*?)```", text, flags=re.DOTALL):
        if language == "python":
            exec(compile(example, "export.md", "exec"), namespace)
        else:
            assert [_code(shlex.split(command)[1:]) for command in commands(example)] in ([], [0])
    assert "same top class for 100.00 %" in capsys.readouterr().out
    classifier = gopro.load("runs/activities", "cpu").for_classes(namespace["about"]["classnames"])
    expected = classifier.predict_proba("image.png")  # 300 x 200: resized and cut
    assert abs(namespace["probabilities"][0] - expected).max() < 1e-4


def test_the_start_page_works_as_it_stands(tmp_path: Path, monkeypatch, capsys) -> None:
    """All but its first block, which installs; commands run in this process, others in a shell."""
    monkeypatch.chdir(tmp_path)
    page = ROOT / "docs" / "start.md"
    examples = re.findall(r"```(python|sh)\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert "pip install ." in examples[0][1]
    accuracies = []
    for language, example in examples[1:]:
        if language == "python":
            exec(compile(example, "start.md", "exec"), {})
            continue
        for line in example.splitlines():
            if line.startswith("gopro "):
                assert _code(shlex.split(line)[1:]) == 0, line
            else:
                subprocess.run(["bash", "-c", line], check=True)
            printed = capsys.readouterr()
            accuracies += re.findall(r"accuracy (\d+\.\d\d) %", printed.out)
            assert "skipped" not in printed.err  # the split file beside the images is ours
    ours, zeroshot = map(float, accuracies)
    assert ours > zeroshot
    assert sum(path.is_file() for path in (tmp_path / "sorted").rglob("*")) == 200
    assert capsys.readouterr().out.count("%") == 2


def test_a_sample_is_not_written_over_what_is_there(tmp_path: Path, capsys) -> None:
    assert _code(["data", "sample", str(tmp_path / "new")]) == 0
    assert len(list((tmp_path / "new").glob("*/*.png"))) == 200
    assert _code(["data", "sample", str(tmp_path / "new")]) == 2
    assert "new is not empty" in capsys.readouterr().err.replace("\n", "")


def _code(arguments: list[str]) -> int:
    try:
        cli.main(arguments)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_documents_parse(page: Path) -> None:
    for command in [c for block in blocks(page, "sh") for c in commands(block)]:
        cli.app.config = ()
        cli.app.parse_args(shlex.split(command, comments=True)[1:], exit_on_error=False, print_error=False)


def test_the_readme_has_the_two_commands_and_they_are_targets() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in (ROOT / "README.md").read_text(encoding="utf-8")
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


def rows(page: Path) -> dict[str, list[str]]:
    """The table of methods on a page: each method's cells, without the marks of the best and of intervals."""
    text = page.read_text(encoding="utf-8")
    table = text[text.index("| | Base | New | HM |") :].partition("\n\n")[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return {name: [re.sub(r"\*\*| [−+]$", "", cell) for cell in rest] for name, *rest in cells[2:]}


def test_the_benchmarks_table_is_what_its_results_file_says(tmp_path: Path) -> None:
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


def test_the_readmes_table_holds_the_means_of_the_benchmarks() -> None:
    def means(page: Path) -> dict[str, list[str]]:
        return {name: [cell.partition(" ")[0] for cell in cells] for name, cells in rows(page).items()}

    ours, whole = means(ROOT / "README.md"), means(ROOT / "docs" / "benchmark.md")
    assert {"zeroshot", "coop", "gopro"} < set(ours) <= set(whole)
    assert all(ours[name] == whole[name] for name in ours)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_demo_ends_in_a_table_a_report_and_what_to_do_next(tmp_path: Path, monkeypatch, capsys) -> None:
    """The demo's own path on fewer images: a second call runs nothing and shows the same."""
    monkeypatch.setattr(demo, "CONFIG", replace(demo.CONFIG, shots=(1,), epochs=1, seeds=(1,), workers=0))
    monkeypatch.setenv("COLUMNS", "200")
    tables = []
    for _ in range(2):
        cli.main(["demo", "--output", str(tmp_path)])
        printed = capsys.readouterr()
        tables.append([line for line in printed.out.splitlines() if "│" in line])
        page = (tmp_path / "report.html").read_text(encoding="utf-8")
        assert all(method in printed.out and method in page for method in ("zeroshot", "coop", "gopro"))
        assert "report.html" in printed.out and "gopro train --data" in printed.out
        assert page.count("<img ") >= 4
    assert tables[0] == tables[1] and printed.err.startswith("0 runs to do")
    said = [command for line in demo.next_steps(demo.CONFIG) for command in re.findall(r"`(gopro [^`]+)`", line)]
    for command in said:
        cli.app.config = ()
        cli.app.parse_args(shlex.split(command)[1:], exit_on_error=False, print_error=False)
    assert len(said) == 3
