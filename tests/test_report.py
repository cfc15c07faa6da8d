"""The base-to-new table against numbers worked out by hand and published ones; the page in a real browser."""

import csv
import html.parser
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from rich.console import Console

from gopro.errors import InputError
from gopro.report import AVERAGE, BaseToNewRow, SampleCard, Spread, base_to_new, markdown_table, rich_table, write_page
from gopro.report.chart import WIDTH, panels

HOSTILE = """<img src=x onerror="alert('1')">&"""


def result(data: str, method: str, seed: int | None, classes: str, accuracy: float, **other: Any) -> dict[str, Any]:
    row = {"protocol": "base-to-new", "data": data, "method": method, "backbone": "emoji", "shots": 16}
    return {**row, "seed": seed, "classes": classes, "accuracy": accuracy, "n": 100, "seconds": 1.0, **other}


def results(data: str, method: str, *pairs: tuple[float, float]) -> list[dict[str, Any]]:
    """Base and new accuracy of seeds 1, 2, ..."""
    return [
        result(data, method, seed, half, accuracy)
        for seed, pair in enumerate(pairs, start=1)
        for half, accuracy in zip(("base", "new"), pair, strict=True)
    ]


def find(table: list[BaseToNewRow], data: str, method: str) -> BaseToNewRow:
    [row] = [row for row in table if (row.data, row.method) == (data, method)]
    return row


def test_mean_and_sample_deviation_over_seeds_by_hand() -> None:
    [row] = base_to_new(results("pets", "coop", (80, 40), (60, 60), (70, 30)))
    assert row.base == Spread(70, 10, 3)
    assert (row.new.mean, row.new.std) == pytest.approx((43.33333, 15.27525))
    # 2·80·40/120 = 53.33, 60, 2·70·30/100 = 42: their mean, not the harmonic mean of 70 and 43.33.
    assert (row.hm.mean, row.hm.std) == pytest.approx((51.77778, 9.10026))
    assert row.notes == ()


def test_average_takes_hm_of_the_average_seed_by_seed() -> None:
    rows = results("pets", "coop", (90, 10), (80, 20)) + results("cars", "coop", (10, 90), (40, 40))
    average = find(base_to_new(rows), AVERAGE, "coop")
    # Seed 1: base 50, new 50, HM 50. Seed 2: base 60, new 30, HM 40.
    assert (average.base.mean, average.new.mean, average.hm.mean) == (55, 40, 45)
    assert (average.base.std, average.hm.std) == pytest.approx((50**0.5, 50**0.5))


def test_averages_are_the_published_ones(shared: Path) -> None:
    with (shared / "reference" / "published_base_to_new.csv").open(encoding="utf-8") as file:
        published = list(csv.DictReader(file))
    for row in published:
        if (row["dataset"], row["method"]) == ("oxford_flowers", "CoCoOp"):
            row["new"] = "71.75"  # the printed 71.15 fits neither its own HM nor the average
    rows = [
        row
        for p in published
        if p["dataset"] != AVERAGE
        for row in results(p["dataset"], p["method"], (float(p["base"]), float(p["new"])))
    ]
    table = base_to_new(rows)
    averages = [p for p in published if p["dataset"] == AVERAGE]
    assert averages
    for p in averages:
        ours = find(table, AVERAGE, p["method"])
        printed = float(p["base"]), float(p["new"]), float(p["hm"])
        assert (ours.base.mean, ours.new.mean, ours.hm.mean) == pytest.approx(printed, abs=0.02), p["method"]


def test_a_method_without_seeds_keeps_its_row_and_its_average() -> None:
    rows = [result(data, "zeroshot", None, half, 50) for data in ("pets", "cars") for half in ("base", "new")]
    rows += results("pets", "coop", (80, 40), (60, 60)) + results("cars", "coop", (80, 40), (60, 60))
    table = base_to_new(rows)
    assert [(row.data, row.method) for row in table] == [
        (data, method) for data in ("pets", "cars", AVERAGE) for method in ("zeroshot", "coop")
    ]
    assert find(table, AVERAGE, "zeroshot").hm == Spread(50, None, 1)
    assert str(find(table, "pets", "zeroshot").hm) == "50.00"


def test_one_data_set_has_no_average() -> None:
    assert [row.data for row in base_to_new(results("pets", "coop", (80, 40)))] == ["pets"]


def test_a_seed_with_one_half_is_left_out_and_said() -> None:
    rows = [*results("pets", "coop", (80, 40), (60, 60)), result("pets", "coop", 3, "base", 10)]
    rows += results("cars", "coop", (80, 40))
    table = base_to_new(rows)
    pets = find(table, "pets", "coop")
    assert (pets.base.mean, pets.base.count) == (70, 2)
    assert pets.notes == ("seed 3 left out, its new half is missing",)
    average = find(table, AVERAGE, "coop")
    assert (average.base, average.notes) == (Spread(80, None, 1), ("seed 2 left out, not every data set has it",))
    assert "- pets, coop: seed 3 left out, its new half is missing" in markdown_table(table)


def test_a_method_that_lacks_a_data_set_has_no_average() -> None:
    rows = results("pets", "coop", (80, 40)) + results("cars", "coop", (80, 40)) + results("pets", "gopro", (99, 99))
    rows.append(result("cars", "gopro", 1, "new", 99))
    table = base_to_new(rows)
    assert str(find(table, "cars", "gopro").hm) == "–"
    average = find(table, AVERAGE, "gopro")
    assert average.hm.count == 0
    assert average.notes == ("no average, cars is missing",)
    assert "| average | gopro | – | – | – |" in markdown_table(table)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=6), st.randoms())
def test_order_of_rows_does_not_matter_and_hm_lies_between(pairs: list[tuple[float, float]], random: Any) -> None:
    rows = results("pets", "coop", *pairs)
    [row] = base_to_new(rows)
    random.shuffle(rows)
    [shuffled] = base_to_new(rows)
    for column in ("base", "new", "hm"):
        ours, theirs = getattr(row, column), getattr(shuffled, column)
        assert (ours.mean, ours.std or 0) == pytest.approx((theirs.mean, theirs.std or 0), abs=1e-9)
    assert row.hm.mean <= (row.base.mean + row.new.mean) / 2 + 1e-9


def test_rows_of_other_protocols_and_of_all_classes_play_no_part() -> None:
    rows = results("pets", "coop", (80, 40))
    extra = [
        result("pets", "coop", 1, "all", 1),
        result("pets", "coop", 1, "all", 2, protocol="cross-dataset"),
        {"protocol": "few-shot", "classes": "base"},
    ]
    assert base_to_new(rows + extra) == base_to_new(rows)
    assert base_to_new([]) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"seed": 1}, "twice"),
        ({"shots": 4}, "backbone and shots"),
        ({"backbone": "RN50:openai"}, "backbone and shots"),
        ({"accuracy": float("nan")}, "accuracy is nan"),
        ({"accuracy": 120}, "accuracy is 120"),
        ({"accuracy": "80"}, "accuracy is '80'"),
        ({"classes": "old"}, "classes is 'old'"),
    ],
)
def test_what_would_make_a_wrong_table_is_refused(change: dict[str, Any], says: str) -> None:
    rows = [*results("pets", "coop", (80, 40)), {**result("pets", "coop", 2, "base", 70), **change}]
    with pytest.raises(InputError, match=says) as caught:
        base_to_new(rows)
    assert "result 3" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_key_is_named() -> None:
    row = result("pets", "coop", 1, "base", 70)
    del row["shots"]
    with pytest.raises(InputError, match="result 1 has no 'shots'"):
        base_to_new([row])


def test_markdown_marks_the_best_of_each_column_and_data_set() -> None:
    rows = results("pets", "a|b", (80, 40), (80, 40)) + results("pets", "gopro", (70, 60), (74, 60))
    rows += results("cars", "a|b", (50, 50)) + results("cars", "gopro", (50.001, 20))
    lines = markdown_table(base_to_new(rows)).splitlines()
    assert lines[:2] == ["| Data | Method | Base | New | HM |", "|---|---|--:|--:|--:|"]
    assert lines[2] == "| pets | a\\|b | **80.00 ± 0.00** | 40.00 ± 0.00 | 53.33 ± 0.00 |"
    assert lines[3] == "| pets | gopro | 72.00 ± 2.83 | **60.00 ± 0.00** | **65.44 ± 1.17** |"
    # What prints the same is a tie.
    assert lines[4] == "| cars | a\\|b | **50.00** | **50.00** | **50.00** |"
    assert lines[5] == "| cars | gopro | **50.00** | 20.00 | 28.57 |"


def test_rich_table_prints_names_as_they_are() -> None:
    rows = results("emoji-animals:twemoji", "gopro[con=0]", (80, 40)) + results("emoji-animals:twemoji", "coop", (1, 2))
    console = Console(file=io.StringIO(), width=90, force_terminal=True, no_color=True, highlight=False)
    console.print(rich_table(base_to_new(rows)))
    assert isinstance(console.file, io.StringIO)
    printed = console.file.getvalue()
    assert "gopro[con=0]" in printed
    assert "emoji-animals:twemoji" in printed
    assert "\x1b[1m80.00\x1b[0m" in printed
    assert "\x1b[1m1.00" not in printed


def many_results() -> list[BaseToNewRow]:
    rows: list[dict[str, Any]] = []
    for data in ("emoji-animals:twemoji", "emoji-food:twemoji"):
        rows += results(data, "zeroshot", (41, 44))
        rows += results(data, "coop", (68, 35), (71, 33), (66, 37))
        rows += results(data, "gopro", (65, 45), (66, 47), (68, 46))
        rows += results(data, "gopro[con=0.1;sem=2;projectors=none]", (99, 1), (99.5, 0))
    return base_to_new(rows)


def test_plot_puts_every_figure_inside_its_panel_on_one_axis() -> None:
    drawn = panels(many_results())
    assert [panel.title for panel in drawn] == ["emoji-animals:twemoji", "emoji-food:twemoji", AVERAGE]
    assert len({tuple(panel.ticks) for panel in drawn}) == 1
    for panel in drawn:
        assert len(panel.lanes) == 4 * 3
        (low, left), (high, right) = panel.ticks[0], panel.ticks[-1]
        assert (left, right) == (panel.left, panel.right)
        assert panel.right <= WIDTH
        for lane in panel.lanes:
            assert lane.x == pytest.approx(left + (lane.spread.mean - low) / (high - low) * (right - left), abs=0.1)
            if lane.low is not None and lane.high is not None:
                assert left <= lane.low <= lane.x <= lane.high <= right
            assert 0 < lane.y < panel.bottom < panel.height


@given(st.tuples(st.floats(0, 100), st.floats(0, 100)))
def test_plot_finds_an_axis_for_any_figures(pair: tuple[float, float]) -> None:
    [panel] = panels(base_to_new(results("pets", "coop", pair)))
    percents = [percent for percent, _ in panel.ticks]
    assert 2 <= len(percents) <= 6
    assert percents[0] <= min(pair)
    assert max(pair) <= percents[-1]
    assert 0 <= percents[0] < percents[-1] <= 100


def test_plot_of_nothing_is_nothing() -> None:
    assert panels([]) == []
    assert panels(base_to_new([result("pets", "coop", 1, "new", 3)])) == []


def cards() -> list[SampleCard]:
    predictions = {
        "zeroshot": [("snowy owl", 0.6), ("red fox", 0.3), ("honeybee", 0.1)],
        "gopro[con=0.1;sem=2;projectors=none]": [("red fox", 0.9), ("grinning cat with smiling eyes", 0.1)],
    }
    return [SampleCard(Image.new("RGB", (64, 64), (200, 90, 30)), "red fox", predictions)] * 5


def page_at(path: Path, **other: Any) -> Path:
    content: dict[str, Any] = {
        "title": "GOPro on emoji",
        "intro": "Made by `gopro demo`. See https://example.org/paper",
        "rows": many_results(),
        "samples": cards(),
        "facts": {"Command": "`gopro demo`", "Machine": "2 cores"},
        "next_steps": [
            "Put them into one folder a class.",
            "Train:\n`gopro train --data folder --root " + "x" * 99 + "`",
        ],
    }
    return write_page(path, **{**content, **other})


class Tags(html.parser.HTMLParser):
    """Elements with their attributes, and the text."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_page_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    page = Tags(page_at(tmp_path / "report.html"))
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "iframe", "object", "embed", "base"})
    for tag, attributes in page.elements:
        for name in ("src", "srcset", "poster", "data", *(["href"] if tag != "a" else [])):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
    style = page_at(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "url(" not in style
    assert "@import" not in style


def test_page_escapes_everything(tmp_path: Path) -> None:
    rows = base_to_new([*results(HOSTILE, HOSTILE, (80, 40)), result(HOSTILE, HOSTILE, 2, "base", 1)])
    card = SampleCard(Image.new("RGB", (8, 8)), HOSTILE, {HOSTILE: [(HOSTILE, 1.0)]})
    page = Tags(
        page_at(
            tmp_path / "report.html",
            title=HOSTILE,
            intro=f"{HOSTILE} `{HOSTILE}`",
            rows=rows,
            samples=[card],
            facts={HOSTILE: HOSTILE},
            next_steps=[HOSTILE, f"{HOSTILE}\n`{HOSTILE}`"],
        )
    )
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    assert len([tag for tag, _ in page.elements if tag == "img"]) == 1
    assert page.text.count(HOSTILE) >= 13


def test_page_embeds_pictures_of_any_mode_and_size(tmp_path: Path) -> None:
    pictures = [Image.new(mode, (900, 300)) for mode in ("RGB", "L", "P", "RGBA", "CMYK")]
    samples = [SampleCard(picture, "red fox", {}) for picture in pictures]
    path = page_at(tmp_path / "report.html", samples=samples)
    assert path.stat().st_size < 100_000
    assert path.read_text(encoding="utf-8").count("data:image/png;base64,") == 5
    assert pictures[0].size == (900, 300)


def test_page_leaves_out_what_is_empty(tmp_path: Path) -> None:
    path = page_at(tmp_path / "report.html", intro="", rows=[], samples=[], facts={}, next_steps=[])
    assert [tag for tag, _ in Tags(path).elements if tag in ("section", "h2", "table", "svg")] == []


def test_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = page_at(tmp_path / "new" / "folder" / "report.html")
    before = path.read_bytes()
    broken = SampleCard(Image.new("RGB", (8, 8)), "fox", {"coop": [("fox", "likely")]})  # type: ignore[list-item]
    with pytest.raises(TypeError):
        page_at(path, samples=[broken])
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine: the page is not opened in a browser")
    quiet = ["--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", "--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=quiet)
        yield browser
        browser.close()


def opened(browser: Browser, path: Path, width: int, scheme: Any) -> tuple[Page, list[str]]:
    """The page, and whatever it complained of or asked for."""
    page = browser.new_page(viewport={"width": width, "height": 844}, color_scheme=scheme)
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("pageerror", lambda error: trouble.append(str(error)))
    page.on("request", lambda request: request.url.startswith("data:") or trouble.append(request.url))
    page.goto(path.as_uri())
    return page, trouble


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_page_in_a_browser(browser: Browser, tmp_path: Path, width: int, scheme: str) -> None:
    path = page_at(tmp_path / "report.html")
    page, trouble = opened(browser, path, width, scheme)
    assert trouble == [path.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.complete && image.naturalWidth === 64)")
    # A method's figure is told right or wrong by a mark and in words, not by colour alone.
    assert page.locator("li.wrong").first.inner_text().split("\n")[0].startswith("✗")
    assert page.locator("li.right").first.inner_text().split("\n")[0].startswith("✓")
    assert "wrong" in (page.locator("li.wrong").first.text_content() or "")
    # Nothing is cut off: no figure of the table or name in the plot leaves its box.
    assert page.evaluate("[...document.querySelectorAll('td')].every(cell => cell.scrollWidth <= cell.clientWidth)")
    assert page.evaluate(
        """[...document.querySelectorAll('svg')].every(plot => {
            const frame = plot.getBoundingClientRect();
            return [...plot.querySelectorAll('text, circle, path')].every(mark => {
                const box = mark.getBoundingClientRect();
                return box.left >= frame.left - 1 && box.right <= frame.right + 1 && box.bottom <= frame.bottom + 1;
            });
        })"""
    )
    page.close()


def test_text_can_be_read_in_both_schemes(browser: Browser, tmp_path: Path) -> None:
    """WCAG's 4.5 : 1 between each text's colour and what lies behind it."""
    path = page_at(tmp_path / "report.html")
    for scheme in ("light", "dark"):
        page, _ = opened(browser, path, 1280, scheme)
        faint = page.evaluate(
            """() => {
            const parse = colour => colour.match(/[\\d.]+/g).map(Number);
            const luminance = ([r, g, b]) => [r, g, b]
                .map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
                .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
            const behind = element => {
                for (let at = element; at; at = at.parentElement) {
                    const colour = parse(getComputedStyle(at).backgroundColor);
                    if (colour.length === 3 || colour[3] === 1) return colour;
                }
            };
            return [...document.querySelectorAll('body *')]
                .filter(e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.tagName !== 'title')
                .map(e => {
                    const style = getComputedStyle(e);
                    const colour = parse(e instanceof SVGElement ? style.fill : style.color);
                    const [dark, light] = [luminance(colour), luminance(behind(e))].sort((a, b) => a - b);
                    return [e.tagName + '.' + e.className, (light + 0.05) / (dark + 0.05)];
                })
                .filter(([, ratio]) => ratio < 4.5);
            }"""
        )
        assert faint == [], scheme
        page.close()
