"""The report on all protocols: its content, its files, and the page in a real browser."""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from gopro.benchmark.report.experiment import Experiment
from gopro.benchmark.report.page import write_report
from gopro.benchmark.report.palette import marks
from gopro.benchmark.report.plots.training_curves import POINTS, training_plots
from gopro.benchmark.runner import benchmark
from gopro.data.dataset import ClassHalf, Dataset
from gopro.data.load_dataset import load_dataset
from gopro.runs.config import BenchmarkConfig
from tests.support.browser import LOW_CONTRAST
from tests.support.fake_sweep import ACCURACY, FakeSweep, own_images
from tests.support.report_page import SECTIONS, ParsedPage, collapsed, drawn_lines

pytestmark = pytest.mark.slow  # the fixture alone takes over 10 s

NEXT = ["Put them into one folder a class.", "Train:\n`gopro train --data folder --root " + "x" * 99 + "`"]


def all_protocols(folder: Path, methods: dict[str, float] = ACCURACY) -> Path:
    """Write a results folder of all four protocols, on embedded data sets and on a folder of images."""
    sweep = FakeSweep(folder / "results", methods)
    own = own_images(folder / "own")
    sets = {name: load_dataset(name) for name in ("emoji-activities", "emoji-food:noto", own)}
    for name, dataset in sets.items():
        sweep.runs("base-to-new", dataset.name, [(dataset, name, "base"), (dataset, name, "new")], 16)
        for shots in (1, 4, 16):
            sweep.runs("few-shot", dataset.name, [(dataset, name, "all")], shots)
    tests: list[tuple[Dataset, str, ClassHalf]] = [(dataset, name, "all") for name, dataset in sets.items()]
    sweep.runs("cross-dataset", tests[0][0].name, tests, 16)
    styles = [f"emoji-activities:{style}" for style in ("noto", "openmoji", "high-contrast")]
    sweep.runs("domain-generalization", styles[0], [(load_dataset(style), style, "all") for style in styles], 16)
    like = {"protocol": "base-to-new", "source": "own", "backbone": "emoji", "shots": 16, "seed": 4, "method": "maple"}
    failures = [
        {**like, "run": "emoji-own-base-maple", "error": "the loss is not finite: use a lower --lr"},
        {**sweep.rows[-1], "error": "it has succeeded since"},
    ]
    call = {"machine": "a processor, 2 cores", "versions": "gopro 0.1.0, torch 2.6.0"}
    calls = [
        {**call, "when": f"2026-01-0{day}T10:00:00+00:00", "command": f"gopro benchmark few-shot --seeds {day}"}
        for day in (1, 2)
    ]
    return sweep.write(failures=failures, history=calls)


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Path of a report on all protocols."""
    methods = {**ACCURACY, "gopro[con=0.1;sem=2;projectors=none]": 0.5}
    return write_report(all_protocols(tmp_path_factory.mktemp("all"), methods), next_steps=NEXT)


def test_a_complete_report_has_every_section_and_no_notes(everything: Path) -> None:
    page = ParsedPage(everything)
    assert list(page.sections) == SECTIONS
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{section}" for section in SECTIONS]
    for title in ("Base-to-new", "Cross-dataset", "Domain generalization", "Few-shot"):
        for section in ("summary", "results", "gains", "confusions", "images", "cost"):
            assert title in page.sections[section], (title, section)


def test_page_loads_nothing_from_elsewhere(everything: Path) -> None:
    page = ParsedPage(everything)
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "iframe", "object", "embed", "base"})
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "poster", "data", *(["href"] if tag != "a" else [])):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        assert (attributes.get("xlink:href") or "#").startswith("#")
    text = everything.read_text(encoding="utf-8")
    assert re.findall(r"url\((?!#)", text) == []
    assert "@import" not in text
    assert len(text) < 1_000_000


def test_tables_and_plots_are_saved_as_files(everything: Path) -> None:
    assert (everything.parent / "tables.md").is_file()
    assert (everything.parent / "tables.tex").is_file()
    stems = {path.stem for path in (everything.parent / "plots").iterdir()}
    assert {stem.partition("-emoji")[0] for stem in stems} >= {
        *("base-to-new", "cross-dataset", "domain-generalization", "few-shot", "training"),
        *("gains-base-to-new", "cost-few-shot"),
    }
    for stem in stems:
        with Image.open(everything.parent / "plots" / f"{stem}.png") as image:
            assert image.width > 400
        assert ElementTree.parse(everything.parent / "plots" / f"{stem}.svg").getroot().tag.endswith("svg")
    named = set(re.findall(r"plots/([^<]+)\.png", everything.read_text(encoding="utf-8")))
    assert named
    assert named <= stems


def test_summary_ranks_by_the_measure_of_each_protocol(everything: Path) -> None:
    text = collapsed(ParsedPage(everything).sections["summary"])
    measures = re.findall(
        r"is best on (average over [^:]*): [\d.]+ % (harmonic mean Base|accuracy(?: with 16 shots)?)", text
    )
    assert measures == [
        ("average over 3 data sets", "harmonic mean Base"),
        ("average over the targets", "accuracy"),
        ("average over the targets", "accuracy"),
        ("average over 3 data sets", "accuracy with 16 shots"),
    ]


def test_the_cost_of_each_method_says_how_it_was_trained(everything: Path) -> None:
    html = everything.read_text(encoding="utf-8")
    rows = re.findall(r'<th scope="row">.*?</th><td>.*?</td>\s*<td class="words">(.*?)</td>', html)
    assert {"–", "200 epochs, batches of 32, SGD at 0.002", "5 epochs, batches of 4, AdamW at 0.001"} == set(rows)


def test_differences_to_one_method_are_below_each_table(everything: Path) -> None:
    page = ParsedPage(everything)
    text = collapsed(page.sections["results"])
    assert text.count("Difference from gopro Each method's average minus that of gopro") == 4
    figure = r"[+−]\d+\.\d\d \[[+−]\d+\.\d\d, [+−]\d+\.\d\d\] "
    for method in ("zeroshot", "coop", r"gopro\[con=0\.1;sem=2;projectors=none\]"):
        assert len(re.findall(rf"{method} ({figure}){{3}}", text)) == 2  # base, new, HM; 1, 4 and 16 shots
        assert len(re.findall(rf"{method} {figure}", text)) == 4
    text = everything.read_text(encoding="utf-8")
    significant = re.findall(r"<strong>([+−])\d+\.\d\d</strong> <small>\[([+−])[^,]+, ([+−])", text)
    assert significant and all(len(set(signs)) == 1 for signs in significant)


def test_example_images_fit_their_reason(everything: Path) -> None:
    text = collapsed(everything.read_text(encoding="utf-8"))
    cards = re.findall(r'<p class="reason">(.*?)</p>(.*?)</article>', text)
    assert len({reason for reason, _ in cards}) >= 6
    for reason, card in cards:
        verdicts = dict(re.findall(r'</span>([^<]+)</h5> <div class="guess (right|wrong)">', card))
        for part in re.split(r", ", reason):
            method, verdict = part.rsplit(" ", 1)
            own = verdicts.values() if method == "all methods" else [verdicts[method]]
            assert set(own) == {verdict}, (reason, verdicts)


def test_training_curves_are_few_and_short(everything: Path) -> None:
    experiment = Experiment(everything.parent)
    shown, hidden = training_plots(experiment, marks(entry["method"] for entry in experiment.rows))
    assert (len(shown), hidden) == (3, 10)  # of 3 base-to-new, 9 few-shot, and 1 more of domain generalization
    assert {"base", "all"} <= {word for plots in shown for word in plots.title.replace(",", "").split()}
    assert all(len(xs) <= POINTS for plots in shown for panel in plots.panels for xs, _ in drawn_lines(panel))


def test_a_real_sweep_is_reported(tmp_path: Path) -> None:
    own = own_images(tmp_path / "own", ["apple", "bicycle", "cat", "dog"])
    config = BenchmarkConfig(
        data=(own,),
        backbones=("emoji",),
        output=tmp_path / "out",
        methods=("zeroshot", "coop"),
        shots=(1,),
        seeds=(1, 2),
        epochs=2,
        workers=0,
    )
    outcome = benchmark("base-to-new", config, command="gopro benchmark base-to-new")
    page = ParsedPage(write_report(config.output))
    assert set(SECTIONS) - set(page.sections) == {"shots", "failures", "next"}
    assert "notes" not in page.sections
    assert "gopro benchmark base-to-new" in page.sections["made"]
    for row in outcome.rows:
        if row["method"] == "zeroshot":
            assert f"{row['accuracy']:.2f}" in page.sections["results"]


def opened(browser: Browser, path: Path, width: int, scheme: Any) -> tuple[Page, list[str]]:
    """Return the page with all details open, and its console messages, errors and requests."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: request.url.startswith("data:") or trouble.append(request.url))
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(details => { details.open = true })")
    return page, trouble


@pytest.mark.parametrize("width", [360, 1280])
def test_bars_of_a_ranking_have_one_scale(browser: Browser, everything: Path, width: int) -> None:
    page, _ = opened(browser, everything, width, "light")
    script = "all => all.map(list => [...list.querySelectorAll('.track')].map(track => track.offsetWidth))"
    rankings = page.locator(".ranking ol").evaluate_all(script)
    assert rankings and all(len(set(widths)) == 1 for widths in rankings)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_page_in_a_browser(browser: Browser, everything: Path, width: int, scheme: str) -> None:
    page, trouble = opened(browser, everything, width, scheme)
    assert trouble == [everything.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.images.length") >= 15
    # Right and wrong are shown by a mark and by words, not by colour alone.
    assert page.locator(".guess.wrong .mark").first.inner_text() == "✗"
    assert page.locator(".guess.right .name").first.text_content().endswith(", right")  # type: ignore[union-attr]
    # A table that is too wide scrolls within its box and keeps its first column in view; nothing else is cut off.
    assert page.evaluate("[...document.querySelectorAll('td')].every(cell => cell.scrollWidth <= cell.clientWidth)")
    cut = page.evaluate(
        """[...document.querySelectorAll('h1, h2, h3, h4, h5, p, li, summary, dd, article, figure')]
            .filter(element => !element.closest('.scroll, nav') && element.scrollWidth > element.clientWidth + 1)
            .map(element => element.outerHTML.slice(0, 200))"""
    )
    assert cut == []
    page.evaluate("document.querySelectorAll('.scroll').forEach(box => box.scrollLeft = 1000)")
    assert page.evaluate(
        """[...document.querySelectorAll('.scroll')].every(box =>
            Math.abs(box.querySelector('tbody th[scope=row]').getBoundingClientRect().left
                - box.getBoundingClientRect().left) < 1 || box.scrollLeft === 0)"""
    )
    # No mark or label of a plot is outside its frame.
    outside = page.evaluate(
        """[...document.querySelectorAll('svg')].flatMap(plot => {
            const frame = plot.closest('figure, article').getBoundingClientRect();
            return [...plot.querySelectorAll('text, path:not(defs *), use')].filter(mark => {
                const box = mark.getBoundingClientRect();
                return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
            }).map(mark => mark.outerHTML.slice(0, 200));
        })"""
    )
    assert outside == []
    page.close()


def test_print_shows_everything_on_white(browser: Browser, everything: Path) -> None:
    page = browser.new_page(viewport={"width": 700, "height": 1000}, color_scheme="dark")
    page.goto(everything.as_uri())
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    shown = "[...document.querySelectorAll('table, img, svg')].every(e => e.checkVisibility())"
    assert page.evaluate(shown)
    page.emulate_media(media="screen")
    assert not page.evaluate(shown)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast_and_size(browser: Browser, everything: Path, scheme: str) -> None:
    """Each text has WCAG's contrast of 4.5 : 1 with its background, and text in plots is at least 9 px high."""
    page, _ = opened(browser, everything, 360, scheme)
    assert page.evaluate(LOW_CONTRAST) == []
    sizes = page.evaluate(
        """[...document.querySelectorAll('svg text')].map(text => {
            const plot = text.ownerSVGElement;
            const scale = plot.getBoundingClientRect().width / plot.viewBox.baseVal.width;
            return parseFloat(getComputedStyle(text).fontSize) * scale;
        })"""
    )
    assert sizes
    assert min(sizes) >= 9
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_result_and_its_chart_are_on_the_first_screen(browser: Browser, everything: Path, scheme: Any) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme=scheme)
    page.goto(everything.as_uri())
    claim, chart = (page.locator(selector).first.bounding_box() for selector in (".claim", ".ranking"))
    assert claim and chart
    assert chart["y"] + chart["height"] < 900 and claim["x"] + claim["width"] <= chart["x"]
    assert claim["y"] < chart["y"] + chart["height"]  # beside it, not above it
    page.set_viewport_size({"width": 380, "height": 800})
    claim, first_bar = (page.locator(selector).first.bounding_box() for selector in (".claim", ".ranking li"))
    assert claim and first_bar and claim["y"] < 300 and first_bar["y"] < 800
    page.close()


def test_the_bars_of_the_first_chart_are_as_long_as_their_figures(browser: Browser, everything: Path) -> None:
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.goto(everything.as_uri())
    bars = page.evaluate(
        """[...document.querySelector('.ranking').querySelectorAll('li')].map(row => [
            parseFloat(row.querySelector('.value').textContent),
            row.querySelector('.fill').offsetWidth / row.querySelector('.track').offsetWidth,
        ])"""
    )
    top = int(re.findall(r"end at (\d+)", page.locator(".ranking .note").first.inner_text())[0])
    assert bars == sorted(bars, reverse=True) and len(bars) == 4
    assert all(share == pytest.approx(value / top, abs=0.01) for value, share in bars)
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_is_cut_off_on_a_phone_has_a_shadow_at_that_edge(browser: Browser, everything: Path, scheme: Any) -> None:
    """A box that scrolls sideways is darker at its right edge until it is scrolled to its end."""
    page, _ = opened(browser, everything, 380, scheme)
    wide = page.evaluate(
        """[...document.querySelectorAll('body *')]
            .filter(e => e.scrollWidth > e.clientWidth + 1 && getComputedStyle(e).overflowX === 'auto')
            .map(e => [e, getComputedStyle(e)])
            .map(([e, style]) => [e.className || e.tagName, style.backgroundImage, style.backgroundAttachment])"""
    )
    assert {"NAV", "scroll"} <= {name for name, *_ in wide}
    for name, images, attachments in wide:
        assert images.count("linear-gradient") == 4, name
        assert attachments.startswith("local, local, scroll, scroll"), name
    nav = page.locator("nav")

    def brightness_at_the_right_edge() -> int:
        with Image.open(io.BytesIO(nav.screenshot())) as image:
            return sum(image.convert("L").getpixel((image.width - 1, y)) for y in (3, 4, 5))

    cut = brightness_at_the_right_edge()
    page.evaluate("document.querySelector('nav').scrollLeft = 10000")
    page.wait_for_timeout(300)
    assert cut < brightness_at_the_right_edge()
    page.close()
