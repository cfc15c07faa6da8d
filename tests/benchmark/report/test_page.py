"""The report on small results folders: escaping, missing and broken parts."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from gopro.benchmark.report.experiment import Experiment
from gopro.benchmark.report.page import write_report
from gopro.benchmark.report.plots import render
from gopro.data.dataset import Dataset
from gopro.data.load_dataset import load_dataset
from gopro.errors import InputError
from tests.support.fake_sweep import FakeSweep, own_images, result_row, write_results
from tests.support.report_page import SECTIONS, ParsedPage, collapsed

HOSTILE = """<img src=x onerror="alert('1')">&"""


@pytest.fixture
def no_plot_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the plots under `plots/`, which take most of a report's time; those on the page are drawn."""
    monkeypatch.setattr(render, "save", lambda plots, folder: None)


@pytest.mark.usefixtures("no_plot_files")
def test_the_same_folder_gives_the_same_page(tmp_path: Path) -> None:
    sweep, _ = few_shot_sweep(tmp_path)
    before = write_report(sweep.write(), next_steps=["Read it."]).read_bytes()
    assert write_report(sweep.folder, next_steps=["Read it."]).read_bytes() == before


@pytest.mark.slow
def test_all_text_from_files_is_escaped(tmp_path: Path) -> None:
    own = load_dataset(own_images(tmp_path / "own", [HOSTILE, "bee", f"c{HOSTILE}", "$d$"]))
    path, own = str(tmp_path / "own"), replace(own, name=HOSTILE)
    sweep = FakeSweep(tmp_path / "results", {"zeroshot": 0.4, f"gopro[{HOSTILE}]": 0.6, "$x^": 0.5})
    sweep.runs("few-shot", HOSTILE, [(own, path, "all")], 2, HOSTILE)
    sweep.runs("base-to-new", HOSTILE, [(own, path, "base"), (own, path, "new")], 2, HOSTILE)
    sweep.runs("cross-dataset", HOSTILE, [(own, path, "all"), (replace(own, name="b"), path, "all")], 2, HOSTILE)
    failure = {"run": HOSTILE, "protocol": HOSTILE, "source": HOSTILE, "method": HOSTILE, "backbone": HOSTILE}
    failure |= {"shots": 1, "seed": 1, "error": HOSTILE, "traceback": HOSTILE, "when": HOSTILE}
    call = dict.fromkeys(("when", "command", "machine", "versions"), HOSTILE)
    folder = sweep.write(failures=[failure], history=[call])
    steps = [HOSTILE, f"{HOSTILE}\n`{HOSTILE}`"]
    page = ParsedPage(write_report(folder, against=f"gopro[{HOSTILE}]", title=HOSTILE, next_steps=steps))
    assert page.sections["results"].count(f"Difference from gopro[{HOSTILE}]") == 3
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    sources = [str(attributes["src"]) for tag, attributes in page.elements if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/webp;base64,") for source in sources)
    for section in set(SECTIONS) - {"notes"}:
        assert HOSTILE in page.sections[section], section


@pytest.mark.usefixtures("no_plot_files")
def test_the_method_to_compare_with_can_be_chosen(tmp_path: Path) -> None:
    sweep, _ = few_shot_sweep(tmp_path)
    text = collapsed(ParsedPage(write_report(sweep.write(), against="zeroshot")).sections["results"])
    assert "Difference from zeroshot" in text
    assert "Difference from zeroshot" in (sweep.folder / "tables.tex").read_text(encoding="utf-8")
    before = (sweep.folder / "report.html").read_bytes()
    with pytest.raises(InputError, match="against maple: not among the methods compared; choose one of zeroshot"):
        write_report(sweep.folder, against="maple")
    assert (sweep.folder / "report.html").read_bytes() == before


def test_published_figures_stand_beside_ours(tmp_path: Path) -> None:
    rows = [result_row("eurosat", "coop", "base", 93.19), result_row("eurosat", "coop", "new", 50.0)]
    page = ParsedPage(write_report(write_results(tmp_path, rows)))
    text = collapsed(page.sections["results"])
    assert re.search(r"93\.19 ?paper 92\.19 \+1\.00", text)  # CoOp's Base on EuroSAT, as published
    assert re.search(r"50\.00 ?paper 54\.74 −4\.74", text)
    assert re.search(r"GOPro published", text)
    assert ("tr", {"class": "published"}) in page.elements
    assert ("span", {"class": "up"}) in page.elements
    assert ("span", {"class": "down"}) in page.elements


@pytest.mark.usefixtures("no_plot_files")
def test_published_figures_beside_gopro_have_a_footnote(tmp_path: Path) -> None:
    rows = [result_row("eurosat", m, half, 70) for m in ("gopro-paper", "gopro") for half in ("base", "new")]
    text = collapsed(ParsedPage(write_report(write_results(tmp_path, rows))).sections["results"])
    assert re.search(r"gopro ‡ ?70\.00 ?paper 94\.92", text) and re.search(r"gopro-paper ?70\.00 ?paper 94\.92", text)
    assert text.count("‡ not the paper's method") == 1


def test_rows_without_runs_give_summary_and_results_alone(tmp_path: Path) -> None:
    rows = [result_row("pets", method, half, 50) for method in ("zeroshot", "coop") for half in ("base", "new")]
    assert list(ParsedPage(write_report(write_results(tmp_path, rows))).sections) == ["summary", "results"]
    assert list(ParsedPage(write_report(write_results(tmp_path, rows[:2]))).sections) == ["summary", "results"]
    assert list(ParsedPage(write_report(write_results(tmp_path, []))).sections) == []


def test_a_folder_without_results_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no results\.jsonl"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["failures", "history"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    write_results(tmp_path, [result_row("pets", "coop", "base", 50)])
    (tmp_path / f"{name}.jsonl").write_text('{"run": 1}\n', encoding="utf-8")
    with pytest.raises(InputError, match=f"{name}.jsonl, line 1") as caught:
        write_report(tmp_path)
    assert "\n" not in str(caught.value)


def few_shot_sweep(folder: Path) -> tuple[FakeSweep, Dataset]:
    """Return a few-shot sweep on a folder of images, and the data set."""
    path = own_images(folder / "own")
    sweep, own = FakeSweep(folder / "results"), load_dataset(path)
    sweep.runs("few-shot", own.name, [(own, path, "all")], 2)
    return sweep, own


@pytest.mark.usefixtures("no_plot_files")
def test_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    sweep, _ = few_shot_sweep(tmp_path)
    path = write_report(sweep.write())
    before = path.read_bytes()
    broken = next((sweep.folder / "runs").glob("*gopro*/test-*"))
    broken.write_bytes(b"no predictions")
    with pytest.raises(InputError, match=re.escape(str(broken))):
        write_report(sweep.folder)
    assert path.read_bytes() == before
    assert not [entry.name for entry in sweep.folder.iterdir() if entry.name.startswith(".")]


@pytest.mark.usefixtures("no_plot_files")
def test_missing_predictions_are_noted(tmp_path: Path) -> None:
    sweep, _ = few_shot_sweep(tmp_path)
    for path in (sweep.folder / "runs").glob("*coop*/test-*"):
        path.unlink()
    page = ParsedPage(write_report(sweep.write()))
    assert "3 of 7 prediction files are missing" in collapsed(page.sections["notes"])
    assert "coop" not in page.sections["gains"]
    assert "coop" in page.sections["results"]


@pytest.mark.usefixtures("no_plot_files")
def test_changed_and_missing_images_are_noted(tmp_path: Path) -> None:
    sweep, own = few_shot_sweep(tmp_path)
    assert "images" in ParsedPage(write_report(sweep.write())).sections
    (tmp_path / "own" / "test" / "apple" / "0.png").unlink()
    page = ParsedPage(write_report(sweep.folder))
    assert "images" not in page.sections
    assert f"{own.name} has changed since" in collapsed(page.sections["notes"])
    shutil.rmtree(tmp_path / "own")
    page = ParsedPage(write_report(sweep.folder))
    assert "images" not in page.sections
    assert f"No images of {own.name} are shown" in collapsed(page.sections["notes"])
    assert "gains" in page.sections


@pytest.mark.usefixtures("no_plot_files")
def test_failures_that_have_succeeded_since_are_left_out(tmp_path: Path) -> None:
    rows = [
        result_row("pets", "coop", half, 50, seed=seed, run=f"run{seed}") for seed in (1, 2) for half in ("base", "new")
    ]
    names = ("protocol", "source", "method", "backbone", "shots", "seed", "run")
    failures = [{**{name: entry[name] for name in names}, "error": "out of memory"} for entry in rows]
    write_results(tmp_path, rows[:3])  # run2 lacks its new half
    text = "".join(json.dumps(failure) + "\n" for failure in failures)
    (tmp_path / "failures.jsonl").write_text(text, encoding="utf-8")
    assert [failure["run"] for failure in Experiment(tmp_path).failures] == ["run2"]
    assert "run2" in ParsedPage(write_report(tmp_path)).sections["failures"]
    assert "run1" not in ParsedPage(write_report(tmp_path)).sections["failures"]
    assert Experiment(write_results(tmp_path, rows)).failures == []
    assert "failures" not in ParsedPage(write_report(tmp_path)).sections


@pytest.mark.usefixtures("no_plot_files")
def test_the_first_screen_names_the_result_and_the_data(tmp_path: Path) -> None:
    path = own_images(tmp_path / "own")
    sweep, own = FakeSweep(tmp_path / "results"), load_dataset(path)
    sweep.runs("base-to-new", own.name, [(own, path, "base"), (own, path, "new")], 2)
    page = ParsedPage(write_report(sweep.write()))
    summary = collapsed(page.sections["summary"])
    assert re.search(rf" on {own.name}: [\d.]+ % harmonic mean", summary)
    assert f"{own.name}: 6 classes (3 base, 3 new), 24 test images" in summary
    assert "data set own · backbone emoji · 3 methods · 3 seeds · 7 runs" in collapsed(page.text)


def test_the_size_of_the_data_is_as_much_as_the_results_record(tmp_path: Path) -> None:
    rows = [result_row("pets", "coop", half, 50) for half in ("base", "new")]
    assert "test image" not in ParsedPage(write_report(write_results(tmp_path, rows))).sections["summary"]
    for row in rows:
        row["n"] = 1500
    assert "pets: 3,000 test images" in collapsed(
        ParsedPage(write_report(write_results(tmp_path, rows))).sections["summary"]
    )
    for row in rows:
        row["class_count"] = 18
    summary = collapsed(ParsedPage(write_report(write_results(tmp_path, rows))).sections["summary"])
    assert "pets: 36 classes (18 base, 18 new), 3,000 test images" in summary


@pytest.mark.usefixtures("no_plot_files")
def test_rows_are_ordered_by_result_and_gopros_is_set_off(tmp_path: Path) -> None:
    figures = {"zeroshot": 50.0, "coop": 40.0, "gopro": 60.0, "maple": 70.0, "gopro[con=0]": 65.0}
    rows = [
        result_row(data, method, half, accuracy, backbone="emoji")
        for data in ("pets", "cars")
        for method, accuracy in figures.items()
        for half in ("base", "new")
    ]
    html = write_report(write_results(tmp_path, rows)).read_text(encoding="utf-8")
    for table in re.findall(r'<table class="results">.*?</table>', html, flags=re.DOTALL):
        for block in re.findall(r"<tbody>.*?</tbody>", table, flags=re.DOTALL):
            names = re.findall(r'<th scope="row"><span class="dot[^>]*></span>(.*?)</th>', block)
            order = [name.replace("<wbr>", "") for name in names]
            best_first = sorted(figures, key=lambda name: -figures[name])
            assert order == [name for name in best_first if name in order]
    assert re.findall(r'<tr class="ours">\s*<th scope="row">.*?</span>(.*?)</th>', html) == ["gopro"] * 3
    # The files keep the order in which the methods were named.
    tables = (tmp_path / "tables.md").read_text(encoding="utf-8")
    assert tables.index("| zeroshot") < tables.index("| coop") < tables.index("| gopro") < tables.index("| maple")


def test_published_figures_are_in_an_open_table(tmp_path: Path) -> None:
    """The paper has no average over these three data sets, so its figures are only in the tables of each."""
    rows = [
        result_row(data, method, half, 70)
        for data in ("eurosat", "dtd", "caltech101")
        for method in ("zeroshot", "coop")
        for half in ("base", "new")
    ]
    html = write_report(write_results(tmp_path, rows)).read_text(encoding="utf-8")
    assert re.search(r"<details open>\s*<summary>Results on each of the 3 data sets</summary>", html)
    assert "paper 92.19" in html
    for row in rows:
        row["backbone"] = "emoji"  # has no published figures
    html = write_report(write_results(tmp_path, rows)).read_text(encoding="utf-8")
    assert re.search(r"<details>\s*<summary>Results on each of the 3 data sets</summary>", html)
