"""The page of `gopro serve` in a real browser, against the real server: what a person does, sees and hears there."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, Route, expect

from gopro.data.load_dataset import load_dataset
from gopro.inference.classifier import Classifier
from gopro.runs.config import TrainConfig
from gopro.runs.run import Run
from gopro.training.train import train
from tests.support.browser import FAINT
from tests.support.serve import Served, serving

HOSTILE = """<img src=x onerror="alert('1')">&"""
expect.set_options(timeout=30_000)  # however busy the machine is
PAGE = Path(__file__).parents[3] / "src" / "gopro" / "serve" / "page"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    output = tmp_path_factory.mktemp("page") / "run"
    config = TrainConfig(
        data="emoji-activities", classes="base", shots=1, epochs=1, workers=0, output=output, device="cpu"
    )
    return train(config)


@pytest.fixture(scope="module")
def served(run: Run) -> Iterator[Served]:
    with serving(run) as served:
        yield served


class Opened:
    """The page, and what it said and did that it should not: messages in the console, requests to elsewhere."""

    def __init__(self, browser: Browser, url: str, width: int = 1280, **context: Any):
        self.context = browser.new_context(viewport={"width": width, "height": 800}, **context)
        self.page = self.context.new_page()
        self.trouble: list[str] = []
        self.asked: list[str] = []
        """The heads of each request for predictions so far."""
        self.page.set_default_timeout(30_000)
        self.page.on("console", lambda message: self.trouble.append(message.text))
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))
        self.page.on("request", lambda request: self._requested(request.url, url))
        self.url = url

    def _requested(self, address: str, url: str) -> None:
        if not address.startswith((url, "blob:")):
            self.trouble.append(address)
        if address == f"{url}/predict":
            self.asked.append(address)

    def open(self) -> Page:
        self.page.goto(self.url)
        expect(self.page.get_by_role("button", name="Sample:")).to_have_count(12)
        return self.page


@pytest.fixture
def opened(browser: Browser, served: Served) -> Iterator[Opened]:
    opened = Opened(browser, served.url)
    opened.open()
    yield opened
    opened.context.close()
    assert opened.trouble == []


@pytest.fixture
def page(opened: Opened) -> Page:
    return opened.page


def image(index: int = 0) -> Image.Image:
    return load_dataset("emoji-activities").test[40 * index].image.open()


def png(index: int = 0, name: str | None = None) -> FilePayload:
    file = io.BytesIO()
    image(index).save(file, "PNG")
    return {"name": name or f"{index}.png", "mimeType": "image/png", "buffer": file.getvalue()}


BROKEN: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\nnothing"}


def choose(page: Page, *files: FilePayload) -> None:
    page.get_by_label("Choose images").set_input_files(files)


def shares(page: Page) -> dict[str, list[str]]:
    """What each row of the table says."""
    # In one go, as rows change their places.
    rows = page.locator("#bars tbody tr").evaluate_all(
        """rows => rows.map(row => {
            const shares = [...row.querySelectorAll('.share')].map(share => share.textContent);
            return [row.querySelector('th').textContent, shares];
        })"""
    )
    return dict(rows)


def with_fixed_text(page: Page) -> None:
    """Waits until all that is asked is answered."""
    expect(page.locator("#bars")).to_be_visible()
    expect(page.locator("#bars")).to_have_attribute("aria-busy", "false")


def names(page: Page) -> list[str]:
    return page.get_by_role("list", name="Class names").locator("li span").all_inner_texts()


def replace_names(page: Page, *lines: str) -> None:
    page.get_by_role("button", name="Edit as a list").click()
    page.get_by_role("textbox", name="Class names, one a line").fill("\n".join(lines))
    page.get_by_role("button", name="Use these").click()


def percent(value: float) -> str:
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def expected(run: Run, image: Image.Image, classes: list[str] | None = None) -> dict[str, str]:
    """What the exact head says, as the page writes it."""
    classifier = Classifier(run.method, run)
    classifier = classifier.for_classes(classes) if classes else classifier
    found = classifier.predict_proba(image)
    return {name: percent(round(float(p), 6)) for name, p in zip(classifier.classes_, found, strict=True)}


def first_column(page: Page) -> dict[str, str]:
    return {name: cells[0] for name, cells in shares(page).items()}


def test_a_sample_is_one_click(page: Page) -> None:
    sample = page.get_by_role("button", name="Sample:").first
    label = sample.get_attribute("title")
    sample.click()
    with_fixed_text(page)
    expect(sample).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("img", name=str(label)).first).to_be_visible()
    assert page.evaluate("document.getElementById('image').naturalWidth") > 0
    headings = page.get_by_role("columnheader").all_inner_texts()
    for heading, title in zip(headings, ("Exact head", "First-order head", "Zero-shot CLIP"), strict=True):
        assert re.fullmatch(rf"{title}\s+\d+(\.\d)? m?s", heading)
    assert re.search(r"the whole answer \d+", page.locator("#times").inner_text())


def test_an_uploaded_image_gets_the_classifiers_answer(page: Page, run: Run) -> None:
    choose(page, png(1, "mine.png"))
    with_fixed_text(page)
    want = expected(run, image(1))
    best = max(want, key=lambda name: float(want[name].rstrip(" %").lstrip("< ")))
    expect(page.locator("#best")).to_have_text(f"{best} {want[best]}")
    expect(page.get_by_role("status").first).to_have_text(f"{best} {want[best]}")
    expect(page.locator("#caption")).to_have_text("mine.png")
    page.get_by_role("button", name="Show all").click()
    assert first_column(page) == want
    assert next(iter(first_column(page))) == best
    # Bars are as long as what they stand for.
    lengths = page.evaluate(
        """[...document.querySelectorAll('#bars tbody tr')].map(row => {
            const bar = row.querySelector('.bar i');
            bar.getAnimations().forEach(animation => animation.finish());
            const [filled, track] = [bar.getBoundingClientRect(), bar.parentElement.getBoundingClientRect()];
            return (filled.right - track.left) / track.width;
        })"""
    )
    for length, share in zip(lengths, first_column(page).values(), strict=True):
        assert length == pytest.approx(float(share.rstrip(" %").lstrip("< ")) / 100, abs=2e-3)
    page.get_by_role("button", name="Show the likeliest only").click()
    assert 8 <= len(shares(page)) <= 10


def test_a_pasted_and_a_dropped_image(opened: Opened, run: Run) -> None:
    page = opened.page
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    replace_names(page, "chess pawn", "violin")
    page.evaluate(
        """async bytes => {
            const blob = new Blob([new Uint8Array(bytes)], { type: 'image/png' });
            await navigator.clipboard.write([new ClipboardItem({ 'image/png': blob })]);
        }""",
        list(png(2)["buffer"]),
    )
    page.locator("h1").click()
    page.keyboard.press("Control+V")
    with_fixed_text(page)
    assert first_column(page) == expected(run, image(2), ["chess pawn", "violin"])
    transfer = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], 'dropped.png', { type: 'image/png' }));
            return transfer;
        }""",
        list(png(3)["buffer"]),
    )
    page.dispatch_event("h1", "dragenter", {"dataTransfer": transfer})
    expect(page.get_by_text("Let go to ask about it")).to_be_visible()
    page.dispatch_event("h1", "drop", {"dataTransfer": transfer})
    expect(page.get_by_text("Let go to ask about it")).to_be_hidden()
    expect(page.locator("#caption")).to_have_text("dropped.png")
    with_fixed_text(page)
    assert first_column(page) == expected(run, image(3), ["chess pawn", "violin"])


def test_probabilities_move_when_names_are_edited(opened: Opened, run: Run) -> None:
    page = opened.page
    training = names(page)
    choose(page, png(1))
    with_fixed_text(page)
    replace_names(page, "chess pawn", "a violin, old")
    with_fixed_text(page)
    box = page.get_by_role("textbox", name="Add a class name")
    box.fill("basketball")
    box.press("Enter")
    expect(page.locator("#names-said")).to_have_text("basketball added.")
    box.press_sequentially("ice skate,")
    assert names(page) == ["chess pawn", "a violin, old", "basketball", "ice skate"]
    with_fixed_text(page)
    assert first_column(page) == expected(run, image(1), names(page))
    asked = len(opened.asked)
    box.fill("chess pawn")
    box.press("Enter")
    expect(page.locator("#names-said")).to_have_text("chess pawn is there already.")
    assert len(opened.asked) == asked
    page.get_by_role("button", name="Remove chess pawn").click()
    assert names(page) == ["a violin, old", "basketball", "ice skate"]
    with_fixed_text(page)
    assert first_column(page) == expected(run, image(1), names(page))
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for text, want in {
        "dice; dart\tyo-yo": ["dice", "dart", "yo-yo"],
        "kite, blue\r\n\r\n kite, red \n": ["kite, blue", "kite, red"],
    }.items():
        before = names(page)
        page.evaluate("text => navigator.clipboard.writeText(text)", text)
        box.press("Control+V")
        assert names(page) == [*before, *want]
    page.get_by_role("button", name="Reset to training").click()
    assert names(page) == training
    with_fixed_text(page)
    assert first_column(page).items() <= expected(run, image(1)).items()


def test_names_are_text_and_nothing_else(page: Page) -> None:
    choose(page, png(0, HOSTILE.replace("/", "")))
    replace_names(page, HOSTILE, "dice")
    with_fixed_text(page)
    assert set(shares(page)) == {HOSTILE, "dice"}
    assert page.locator("main img[src=x]").count() == 0


def test_a_late_answer_to_an_earlier_question_is_dropped(opened: Opened, run: Run) -> None:
    page = opened.page
    choose(page, png(1))
    with_fixed_text(page)
    held: list[Route] = []

    def hold(route: Route) -> None:
        if b"second" in (route.request.post_data_buffer or b""):
            route.continue_()
        else:
            held.append(route)

    page.route("**/predict", hold)
    with page.expect_request("**/predict"):
        replace_names(page, "first", "dice")
    expect(page.locator("#best")).to_have_class("stale")
    replace_names(page, "second", "dice")
    with_fixed_text(page)
    assert held
    for route in held:
        route.continue_()
    page.wait_for_timeout(300)
    assert first_column(page) == expected(run, image(1), ["second", "dice"])


def test_several_images_are_a_strip_to_choose_from(opened: Opened, run: Run) -> None:
    page = opened.page
    choose(page, *(png(i) for i in range(3)), BROKEN)
    with_fixed_text(page)
    strip = page.get_by_role("list", name="Images to choose from")
    expect(strip.get_by_role("button", name="broken.png").first).to_contain_text("unreadable")
    for i in range(3):
        want = Classifier(run.method, run).predict(image(i))
        expect(strip.get_by_role("button", name=f"{i}.png").first).to_contain_text(want)
    strip.get_by_role("button", name="2.png").first.click()
    expect(page.locator("#caption")).to_have_text("2.png")
    with_fixed_text(page)
    assert first_column(page).items() <= expected(run, image(2)).items()
    strip.get_by_role("button", name="broken.png").first.click()
    expect(page.get_by_role("alert").filter(has_text="broken.png")).to_be_visible()
    expect(page.locator("#bars")).to_be_hidden()
    page.keyboard.press("Delete")
    expect(strip.get_by_role("listitem")).to_have_count(3)
    expect(strip.get_by_role("button", name="2.png").first).to_be_focused()
    strip.get_by_role("listitem").first.hover()
    strip.get_by_role("button", name="Remove 0.png").click()
    strip.get_by_role("button", name="Remove 1.png").click(force=True)
    expect(strip).to_be_hidden()
    expect(page.locator("#caption")).to_have_text("2.png")
    with_fixed_text(page)
    assert first_column(page).items() <= expected(run, image(2)).items()


def test_heads_side_by_side_or_fewer(page: Page) -> None:
    choose(page, png(1))
    with_fixed_text(page)
    everything = shares(page)
    assert {len(cells) for cells in everything.values()} == {3}
    page.get_by_role("checkbox", name="Exact head").uncheck()
    page.get_by_role("checkbox", name="First-order head").uncheck()
    with_fixed_text(page)
    assert len(page.get_by_role("columnheader").all()) == 1
    last = page.get_by_role("checkbox", name="Zero-shot CLIP")
    last.click()
    expect(last).to_be_checked()  # one stays
    for name, [share] in shares(page).items():
        assert everything.get(name, [share])[-1] == share
    values = [float(share.rstrip(" %").lstrip("< ")) for [share] in shares(page).values()]
    assert values == sorted(values, reverse=True)


def test_by_keyboard_alone(page: Page) -> None:
    def tab_to(wanted: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
                outlined = """() => {
                    for (let at = document.activeElement; at; at = at.parentElement)
                        if (getComputedStyle(at).outlineStyle === 'solid') return true;
                    const inner = document.activeElement.querySelector('img');
                    return Boolean(inner) && getComputedStyle(inner).outlineStyle === 'solid';
                }"""
                assert page.evaluate(outlined), f"the focus on {wanted} cannot be seen"
                return
        pytest.fail(f"Tab never comes to {wanted}")

    replace_names(page, "dice", "dart", "kite")
    page.evaluate("document.activeElement.blur()")
    tab_to("#files")
    tab_to("#samples button")
    page.keyboard.press("Enter")
    with_fixed_text(page)
    tab_to("#names li button")
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    expect(page.get_by_role("button", name="Remove dart")).to_be_focused()
    page.keyboard.press("Delete")
    expect(page.get_by_role("button", name="Remove kite")).to_be_focused()
    tab_to("#name")
    page.keyboard.type("yo-yo")
    page.keyboard.press("Enter")
    assert names(page) == ["dice", "kite", "yo-yo"]
    page.keyboard.press("Backspace")
    expect(page.get_by_role("textbox", name="Add a class name")).to_be_focused()
    for _ in range(2):
        page.keyboard.press("Backspace")
    assert names(page) == []
    expect(page.locator("#best")).to_have_text("Add a class name to ask about.")
    expect(page.locator("#bars")).to_be_hidden()
    page.keyboard.type("kite")
    page.keyboard.press("Enter")
    expect(page.locator("#best")).to_have_text("kite 100.0 %")
    tab_to("#heads input")
    page.keyboard.press("Space")
    expect(page.get_by_role("checkbox", name="Exact head")).not_to_be_checked()


@pytest.fixture
def failing(browser: Browser, served: Served) -> Iterator[Opened]:
    """A page of which requests fail, which the browser itself writes into the console."""
    opened = Opened(browser, served.url)
    opened.open()
    yield opened
    opened.context.close()
    assert [line for line in opened.trouble if not line.startswith("Failed to load resource")] == []


def told(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator("#trouble")).to_have_text(text)
    expect(page.locator("#trouble")).to_have_role("alert")


def test_a_broken_image_is_told(failing: Opened) -> None:
    page = failing.page
    choose(page, BROKEN)
    told(page, re.compile(r"broken\.png"))
    expect(page.locator("#bars")).to_be_hidden()
    expect(page.locator("#best")).to_be_hidden()
    choose(page, png(0))
    with_fixed_text(page)
    expect(page.locator("#trouble")).to_be_hidden()


def test_names_that_the_server_refuses_are_told(failing: Opened) -> None:
    page = failing.page
    choose(page, png(0))
    replace_names(page, "x" * 201, "dice")
    told(page, re.compile("name"))
    assert "Try again" not in page.locator("#trouble").inner_text()
    replace_names(page, "dice", "dart")
    with_fixed_text(page)
    expect(page.locator("#trouble")).to_be_hidden()


def test_a_long_list_of_names_stays_usable(failing: Opened) -> None:
    page = failing.page
    many = [f"thing number {i}" for i in range(1001)]
    choose(page, png(0))
    replace_names(page, *many)
    expect(page.locator("#names-said")).to_have_text("At most 1000 names; the last 1 is left out.")
    expect(page.locator("#count")).to_have_text("1000")
    assert page.locator("#names").bounding_box()["height"] < 200  # type: ignore[index]
    expect(page.get_by_role("alert").filter(has_text="First-order head: ")).to_be_visible(timeout=30_000)
    assert len(shares(page)) >= 8
    # One Tab leads past all of them.
    page.get_by_role("button", name="Edit as a list").focus()
    stops = []
    for _ in range(4):
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    assert "name" in stops


def test_a_image_that_is_too_large_is_not_sent(opened: Opened, served: Served) -> None:
    limits = json.loads(served.get("/classes").text)["limits"]
    opened.page.evaluate(
        """size => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(size + 1)], 'huge.png', { type: 'image/png' }));
            dispatchEvent(new DragEvent('drop', { dataTransfer: transfer }));
        }""",
        limits["upload_bytes"],
    )
    expect(opened.page.locator("#refused")).to_have_text(
        "huge.png has 34 MB, this server takes 34 MB: make it smaller."
    )


def test_too_many_images_are_left_out(page: Page) -> None:
    choose(page, *(png(i % 3, f"{i}.png") for i in range(34)))
    expect(page.locator("#refused")).to_have_text("At most 32 images at a time: 32.png and what follows are left out.")
    expect(page.get_by_role("list", name="Images to choose from").get_by_role("listitem")).to_have_count(32)
    with_fixed_text(page)
    expect(page.locator("#strip li span").last).not_to_be_empty(timeout=20_000)


def test_a_server_that_says_too_large(browser: Browser, run: Run) -> None:
    """The server's own 413, had by telling the page of a greater limit than there is."""
    with serving(run, max_upload_mib=1) as served:
        opened = Opened(browser, served.url)

        def widened(route: Route) -> None:
            about = route.fetch().json()
            about["limits"]["upload_bytes"] *= 10
            route.fulfill(json=about)

        opened.page.route("**/classes", widened)
        page = opened.open()
        choose(page, {"name": "noise.png", "mimeType": "image/png", "buffer": png()["buffer"] + bytes(1 << 20)})
        told(page, re.compile("1 MiB"))
        opened.context.close()


def test_a_busy_server_is_asked_again(failing: Opened, run: Run) -> None:
    page = failing.page
    message = "100 requests are being worked on, and there is room for 100: ask again in a moment"
    left = [2]

    def busy(route: Route) -> None:
        if left[0] == 0:
            return route.continue_()
        left[0] -= 1
        error = {"error": {"code": "busy", "message": message}}
        route.fulfill(status=503, json=error, headers={"Retry-After": "1"})

    page.route("**/predict", busy)
    choose(page, png(1))
    told(page, f"{message}; this page does.")
    with_fixed_text(page)
    expect(page.locator("#trouble")).to_be_hidden()
    assert first_column(page).items() <= expected(run, image(1)).items()


def test_a_server_that_is_gone_and_comes_back(failing: Opened, run: Run) -> None:
    page = failing.page
    choose(page, png(1))
    with_fixed_text(page)
    failing.context.set_offline(True)
    replace_names(page, "dice", "dart")
    told(page, "The server does not answer. See whether gopro serve is still running.Try again")
    failing.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    with_fixed_text(page)
    expect(page.locator("#trouble")).to_be_hidden()
    assert first_column(page) == expected(run, image(1), ["dice", "dart"])


def test_a_page_whose_server_is_gone_from_the_start(browser: Browser, run: Run) -> None:
    with serving(run) as served:
        opened = Opened(browser, served.url)
        opened.page.route("**/classes", lambda route: route.abort())
        opened.page.goto(served.url)
        told(opened.page, re.compile("The server does not answer"))
        opened.page.unroute("**/classes")
        opened.page.get_by_role("button", name="Try again").click()
        expect(opened.page.get_by_role("button", name="Sample:")).to_have_count(12)
        opened.context.close()


def test_a_key_is_asked_for_once(browser: Browser, run: Run) -> None:
    with serving(run, key="open-sesame") as served:
        opened = Opened(browser, served.url)
        page = opened.page
        page.goto(served.url)
        dialog = page.get_by_role("dialog", name="This server asks for a key")
        dialog.get_by_label("API key").fill("wrong")
        dialog.get_by_role("button", name="Go on").click()
        expect(dialog.get_by_role("alert")).to_have_text("That is not the key.")
        page.keyboard.press("Escape")
        told(page, re.compile("API key"))
        page.get_by_role("button", name="Try again").click()
        dialog.get_by_label("API key").fill("open-sesame")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Sample:")).to_have_count(12)
        page.reload()
        page.get_by_role("button", name="Sample:").first.click()
        with_fixed_text(page)
        expect(dialog).to_be_hidden()
        opened.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_it_fits_and_can_be_read(browser: Browser, served: Served, width: int, scheme: Any) -> None:
    opened = Opened(browser, served.url, width, color_scheme=scheme, reduced_motion="reduce")
    page = opened.open()
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    assert page.evaluate(FAINT) == []
    replace_names(page, "w" * 180, "a very long name of several words, as some data sets have them", "dice")
    page.locator("summary").click()
    choose(page, *(png(i, f"{'long' * 30}{i}.png") for i in range(3)), BROKEN)
    with_fixed_text(page)
    expect(page.locator(".broken")).to_be_visible()
    assert page.evaluate(fits)
    assert page.evaluate(FAINT) == []
    assert page.evaluate("document.getAnimations().length") == 0
    page.locator(".broken").click()
    expect(page.locator("#trouble")).to_be_visible()
    assert page.evaluate(fits)
    assert page.evaluate(FAINT) == []
    # What can be pressed is large enough for a finger (WCAG 2.2, target size).
    small = page.evaluate(
        """[...document.querySelectorAll('button, label')]
            .map(e => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])
            .filter(([, box]) => box.width && (box.width < 24 || box.height < 24)).map(([html]) => html)"""
    )
    assert small == []
    opened.context.close()
    assert [line for line in opened.trouble if not line.startswith("Failed to load resource")] == []


def test_everything_that_can_be_used_has_a_name(page: Page) -> None:
    choose(page, png(0), png(1))
    with_fixed_text(page)
    nameless = page.evaluate(
        """[...document.querySelectorAll('main button, main input, main img, main ul')]
            .filter(e => e.checkVisibility() && !e.textContent.trim() && !e.ariaLabel && !e.alt
                && !e.labels?.[0]?.textContent.trim() && !e.querySelector('img[alt]'))
            .map(e => e.outerHTML)"""
    )
    assert nameless == []
    table = page.get_by_role("table", name="Probability of each class name")
    expect(table.get_by_role("rowheader")).to_have_count(len(shares(page)))


def test_page_holds_no_script_or_style_of_its_own() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=|https?:|//", html)
    for file in PAGE.iterdir():
        found = re.findall(r"https?://[^\s\"']+", file.read_text(encoding="utf-8"))
        assert set(found) <= {"http://www.w3.org/2000/svg"}, file
