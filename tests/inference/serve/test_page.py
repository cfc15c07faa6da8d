"""The page of `gopro serve` in a real browser, against a real server: what a person does, sees and hears."""

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

from gopro.clip.backbone import Backbone
from gopro.data.load_dataset import load_dataset
from gopro.inference.classifier import Classifier
from gopro.inference.serve.app import PAGE
from gopro.methods.registry import build_method
from gopro.runs.run import Run
from tests.support.browser import LOW_CONTRAST
from tests.support.serve import RunningServer, serve_in_thread, untrained_run

HOSTILE = """<img src=x onerror="alert('1')">&"""
expect.set_options(timeout=30_000)  # however busy the machine is


class BrowserPage:
    """The page in a browser context of its own.

    Attributes:
        problems: messages in the console, errors, and requests to other servers.
        predict_requests: how many requests for predictions it has sent.
    """

    def __init__(self, browser: Browser, url: str, width: int = 1280, **context: Any):
        self.context = browser.new_context(viewport={"width": width, "height": 800}, **context)
        self.page = self.context.new_page()
        self.problems: list[str] = []
        self.predict_requests = 0
        self.page.set_default_timeout(30_000)
        self.page.on("console", lambda message: self.problems.append(message.text))
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("request", lambda request: self._on_request(request.url, url))
        self.url = url

    def _on_request(self, address: str, url: str) -> None:
        if not address.startswith((url, "blob:")):
            self.problems.append(address)
        if address == f"{url}/predict":
            self.predict_requests += 1

    def open(self) -> Page:
        self.page.goto(self.url)
        expect(self.page.get_by_role("button", name="Sample:")).to_have_count(12)
        return self.page


@pytest.fixture
def browser_page(browser: Browser, server: RunningServer) -> Iterator[BrowserPage]:
    browser_page = BrowserPage(browser, server.url)
    browser_page.open()
    yield browser_page
    browser_page.context.close()
    assert browser_page.problems == []


@pytest.fixture
def page(browser_page: BrowserPage) -> Page:
    return browser_page.page


def image(index: int = 0) -> Image.Image:
    return load_dataset("emoji-activities").test[40 * index].image.open()


def png(index: int = 0, name: str | None = None) -> FilePayload:
    file = io.BytesIO()
    image(index).save(file, "PNG")
    return {"name": name or f"{index}.png", "mimeType": "image/png", "buffer": file.getvalue()}


BROKEN: FilePayload = {"name": "broken.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\nnothing"}


def choose(page: Page, *files: FilePayload) -> None:
    page.get_by_label("Choose images").set_input_files(files)


def table_rows(page: Page) -> dict[str, list[str]]:
    """Return the cells of each class name. Read at once, because rows move."""
    rows = page.locator("#bars tbody tr").evaluate_all(
        """rows => rows.map(row => {
            const shares = [...row.querySelectorAll('.share')].map(share => share.textContent);
            return [row.querySelector('th').textContent, shares];
        })"""
    )
    return dict(rows)


def wait_for_answers(page: Page) -> None:
    expect(page.locator("#bars")).to_be_visible()
    expect(page.locator("#bars")).to_have_attribute("aria-busy", "false")


def names(page: Page) -> list[str]:
    return page.get_by_role("list", name="Class names").locator("li span").all_inner_texts()


def replace_names(page: Page, *lines: str) -> None:
    page.get_by_role("button", name="Edit as text").click()
    page.get_by_role("textbox", name="Class names, one per line").fill("\n".join(lines))
    page.get_by_role("button", name="Use these names").click()


def percent(value: float) -> str:
    return "< 0.1 %" if 0 < value < 0.0005 else f"{100 * value:.1f} %"


def expected(trained_run: Run, image: Image.Image, classes: list[str] | None = None) -> dict[str, str]:
    """Return the exact head's probabilities as the page shows them."""
    classifier = Classifier(trained_run.method, trained_run)
    classifier = classifier.for_classes(classes) if classes else classifier
    result = classifier.predict_proba(image)
    return {name: percent(round(float(p), 6)) for name, p in zip(classifier.classes_, result, strict=True)}


def first_column(page: Page) -> dict[str, str]:
    return {name: cells[0] for name, cells in table_rows(page).items()}


def test_clicking_a_sample_shows_its_predictions(page: Page) -> None:
    sample = page.get_by_role("button", name="Sample:").first
    label = sample.get_attribute("title")
    sample.click()
    wait_for_answers(page)
    expect(sample).to_have_attribute("aria-current", "true")
    expect(page.get_by_role("img", name=str(label)).first).to_be_visible()
    assert page.evaluate("document.getElementById('image').naturalWidth") > 0
    [heading] = page.get_by_role("columnheader").all_inner_texts()
    assert re.fullmatch(r"Trained\s+\d+(\.\d)? m?s", heading)
    assert re.search(r"\d+ m?s in total", page.locator("#times").inner_text())


def test_probabilities_of_an_uploaded_image_equal_the_classifiers(page: Page, trained_run: Run) -> None:
    choose(page, png(1, "mine.png"))
    wait_for_answers(page)
    probabilities = expected(trained_run, image(1))
    shares = {name: float(share.rstrip(" %").lstrip("< ")) for name, share in probabilities.items()}
    best = next(iter(first_column(page)))
    assert shares[best] == max(shares.values())  # which others may share, as they are rounded
    expect(page.locator("#best")).to_have_text(f"{best} {probabilities[best]}")
    expect(page.get_by_role("status").first).to_have_text(f"{best} {probabilities[best]}")
    expect(page.locator("#caption")).to_have_text("mine.png")
    page.get_by_role("button", name="Show all").click()
    assert first_column(page) == probabilities
    assert next(iter(first_column(page))) == best
    # The length of a bar is its probability.
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
    page.get_by_role("button", name="Show only the most likely").click()
    assert 8 <= len(table_rows(page)) <= 10


def test_images_can_be_pasted_and_dropped(browser_page: BrowserPage, trained_run: Run) -> None:
    page = browser_page.page
    browser_page.context.grant_permissions(["clipboard-read", "clipboard-write"])
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
    wait_for_answers(page)
    assert first_column(page) == expected(trained_run, image(2), ["chess pawn", "violin"])
    transfer = page.evaluate_handle(
        """bytes => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(bytes)], 'dropped.png', { type: 'image/png' }));
            return transfer;
        }""",
        list(png(3)["buffer"]),
    )
    page.dispatch_event("h1", "dragenter", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop the image here")).to_be_visible()
    page.dispatch_event("h1", "drop", {"dataTransfer": transfer})
    expect(page.get_by_text("Drop the image here")).to_be_hidden()
    expect(page.locator("#caption")).to_have_text("dropped.png")
    wait_for_answers(page)
    assert first_column(page) == expected(trained_run, image(3), ["chess pawn", "violin"])


def test_probabilities_follow_the_class_names(browser_page: BrowserPage, trained_run: Run) -> None:
    page = browser_page.page
    training = names(page)
    choose(page, png(1))
    wait_for_answers(page)
    replace_names(page, "chess_pawn", " chess  pawn", "a violin, old")  # cleaned as the server does
    wait_for_answers(page)
    box = page.get_by_role("textbox", name="Add a class name")
    box.fill("basketball")
    box.press("Enter")
    expect(page.locator("#names-status")).to_have_text("basketball added.")
    box.press_sequentially("ice skate,")
    assert names(page) == ["chess pawn", "a violin, old", "basketball", "ice skate"]
    wait_for_answers(page)
    assert first_column(page) == expected(trained_run, image(1), names(page))
    before = browser_page.predict_requests
    box.fill("chess pawn")
    box.press("Enter")
    expect(page.locator("#names-status")).to_have_text("chess pawn is already in the list.")
    assert browser_page.predict_requests == before
    page.get_by_role("button", name="Remove chess pawn").click()
    assert names(page) == ["a violin, old", "basketball", "ice skate"]
    wait_for_answers(page)
    assert first_column(page) == expected(trained_run, image(1), names(page))
    browser_page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    for text, added in {
        "dice; dart\tyo-yo": ["dice", "dart", "yo-yo"],
        "kite, blue\r\n\r\n kite, red \n": ["kite, blue", "kite, red"],
    }.items():
        before = names(page)
        page.evaluate("text => navigator.clipboard.writeText(text)", text)
        box.press("Control+V")
        assert names(page) == [*before, *added]
    wait_for_answers(page)
    before = browser_page.predict_requests
    replace_names(page, "dice")
    expect(page.locator("#best")).to_have_text("Add another class name: a single one would always get 100 %.")
    assert browser_page.predict_requests == before
    page.get_by_role("button", name="Reset").click()
    assert names(page) == training
    wait_for_answers(page)
    assert first_column(page).items() <= expected(trained_run, image(1)).items()


def test_html_in_names_is_shown_as_text(page: Page) -> None:
    choose(page, png(0, HOSTILE.replace("/", "")))
    replace_names(page, HOSTILE, "dice")
    wait_for_answers(page)
    assert set(table_rows(page)) == {HOSTILE, "dice"}
    assert page.locator("main img[src=x]").count() == 0


def test_a_late_response_about_earlier_names_is_ignored(browser_page: BrowserPage, trained_run: Run) -> None:
    page = browser_page.page
    choose(page, png(1))
    wait_for_answers(page)
    delayed: list[Route] = []

    def delay(route: Route) -> None:
        if b"second" in (route.request.post_data_buffer or b""):
            route.continue_()
        else:
            delayed.append(route)

    page.route("**/predict", delay)
    with page.expect_request("**/predict"):
        replace_names(page, "first", "dice")
    expect(page.locator("#best")).to_have_class("stale")
    replace_names(page, "second", "dice")
    wait_for_answers(page)
    assert delayed
    for route in delayed:
        route.continue_()
    page.wait_for_timeout(300)
    assert first_column(page) == expected(trained_run, image(1), ["second", "dice"])


def test_several_images_form_a_strip(browser_page: BrowserPage, trained_run: Run) -> None:
    page = browser_page.page
    choose(page, *(png(i) for i in range(3)), BROKEN)
    wait_for_answers(page)
    strip = page.get_by_role("list", name="Images to choose from")
    expect(strip.get_by_role("button", name="broken.png").first).to_contain_text("unreadable")
    reason = "broken.png: "
    expect(page.locator("#unreadable")).to_contain_text(reason)  # without a click
    assert len(page.locator("#unreadable").inner_text()) > len(reason) + 10
    for i in range(3):
        label = Classifier(trained_run.method, trained_run).predict(image(i))
        expect(strip.get_by_role("button", name=f"{i}.png").first).to_contain_text(label)
    strip.get_by_role("button", name="2.png").first.click()
    expect(page.locator("#caption")).to_have_text("2.png")
    wait_for_answers(page)
    assert first_column(page).items() <= expected(trained_run, image(2)).items()
    strip.get_by_role("button", name="broken.png").first.click()
    expect(page.get_by_role("alert").filter(has_text="broken.png")).to_be_visible()
    expect(page.locator("#unreadable")).to_be_hidden()  # the reason is not given twice
    expect(page.locator("#bars")).to_be_hidden()
    page.keyboard.press("Delete")
    expect(strip.get_by_role("listitem")).to_have_count(3)
    expect(strip.get_by_role("button", name="2.png").first).to_be_focused()
    strip.get_by_role("listitem").first.hover()
    strip.get_by_role("button", name="Remove 0.png").click()
    strip.get_by_role("button", name="Remove 1.png").click(force=True)
    expect(strip).to_be_hidden()
    expect(page.locator("#caption")).to_have_text("2.png")
    wait_for_answers(page)
    assert first_column(page).items() <= expected(trained_run, image(2)).items()


def test_the_trained_model_can_be_compared(page: Page, trained_run: Run) -> None:
    choose(page, png(1))
    wait_for_answers(page)
    alone = first_column(page)
    boxes = page.get_by_role("checkbox")
    assert [box.is_checked() for box in boxes.all()] == [False, False]
    page.get_by_role("checkbox", name="Compare with zero-shot").check()
    expect(page.get_by_role("columnheader")).to_have_count(2)
    wait_for_answers(page)
    page.get_by_role("checkbox", name="Compare with the fast approximation").check()
    expect(page.get_by_role("columnheader")).to_have_count(3)
    wait_for_answers(page)
    titles = [heading.split()[0] for heading in page.get_by_role("columnheader").all_inner_texts()]
    assert titles == ["Trained", "Zero-shot", "Fast"]
    assert alone.items() <= first_column(page).items()
    zeroshot = build_method(
        "zeroshot", trained_run.method.backbone, trained_run.method.classnames, trained_run.template
    )
    assert trained_run.calibration is not None
    zeroshot.temperature = trained_run.calibration.zeroshot_temperature
    plain = Classifier(zeroshot.eval())
    shares = plain.predict_proba(image(1))
    for name, share in zip(plain.classes_, shares, strict=True):
        if name in table_rows(page):
            assert table_rows(page)[name][1] == percent(round(float(share), 6))
    for box in boxes.all():
        box.uncheck()
    expect(page.get_by_role("columnheader")).to_have_count(1)
    assert first_column(page) == alone


def test_a_run_of_zero_shot_clip_has_nothing_to_compare_with(browser: Browser, tiny: Backbone, tmp_path: Path) -> None:
    with serve_in_thread(untrained_run("zeroshot", tiny, ["dice", "dart"], tmp_path)) as server:
        browser_page = BrowserPage(browser, server.url)
        browser_page.page.goto(server.url)
        choose(browser_page.page, png(0))
        wait_for_answers(browser_page.page)
        assert browser_page.page.get_by_role("columnheader").inner_text().startswith("Zero-shot")
        expect(browser_page.page.get_by_role("checkbox")).to_have_count(0)
        browser_page.context.close()


def test_the_page_has_no_words_of_the_api(page: Page) -> None:
    choose(page, png(0))
    for box in page.get_by_role("checkbox").all():
        box.check()
    wait_for_answers(page)
    page.locator("summary").click()
    shown = page.locator("body").inner_text().lower()
    assert not re.search(r"\b(head|exact|first-order|zeroshot)\b", shown)


@pytest.mark.parametrize("height", [667, 800])
def test_the_answer_is_right_below_the_image_on_the_first_screen_of_a_phone(
    browser: Browser, server: RunningServer, height: int
) -> None:
    browser_page = BrowserPage(browser, server.url, 380, is_mobile=True, has_touch=True, reduced_motion="reduce")
    page = browser_page.open()
    page.set_viewport_size({"width": 380, "height": height})
    choose(page, *(png(i) for i in range(3)))
    wait_for_answers(page)
    shown, answer, bars = (page.locator(selector).bounding_box() for selector in ("#image", "#best", "#bars"))
    assert shown and answer and bars
    assert 0 <= answer["y"] - (shown["y"] + shown["height"]) < 20
    assert shown["height"] > 200 and answer["y"] + answer["height"] < height
    drop = page.locator(".drop").bounding_box()
    assert drop and bars["y"] < drop["y"]  # the probabilities come before another image
    assert page.evaluate("scrollY") == 0
    browser_page.context.close()


def test_everything_works_by_keyboard(page: Page) -> None:
    def tab_to(selector: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outlined = """() => {
                    for (let at = document.activeElement; at; at = at.parentElement)
                        if (getComputedStyle(at).outlineStyle === 'solid') return true;
                    const inner = document.activeElement.querySelector('img');
                    return Boolean(inner) && getComputedStyle(inner).outlineStyle === 'solid';
                }"""
                assert page.evaluate(outlined), f"the focus on {selector} is invisible"
                return
        pytest.fail(f"Tab never reaches {selector}")

    replace_names(page, "dice", "dart", "kite")
    page.evaluate("document.activeElement.blur()")
    tab_to("#files")
    tab_to("#samples button")
    page.keyboard.press("Enter")
    wait_for_answers(page)
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
    expect(page.locator("#best")).to_have_text("Add two class names.")
    expect(page.locator("#bars")).to_be_hidden()
    page.keyboard.type("kite")
    page.keyboard.press("Enter")
    expect(page.locator("#best")).to_have_text(re.compile("^Add another class name"))
    page.keyboard.type("dice")
    page.keyboard.press("Enter")
    expect(page.locator("#best")).to_have_text(re.compile(r"^(kite|dice) \d+\.\d %$"))
    tab_to("#heads input")
    page.keyboard.press("Space")
    expect(page.get_by_role("checkbox", name="Compare with zero-shot")).to_be_checked()


@pytest.fixture
def failing_page(browser: Browser, server: RunningServer) -> Iterator[BrowserPage]:
    """A page whose requests fail on purpose, which the browser reports in the console."""
    browser_page = BrowserPage(browser, server.url)
    browser_page.open()
    yield browser_page
    browser_page.context.close()
    assert [line for line in browser_page.problems if not line.startswith("Failed to load resource")] == []


def check_message(page: Page, text: str | re.Pattern[str]) -> None:
    expect(page.locator("#trouble")).to_have_text(text)
    expect(page.locator("#trouble")).to_have_role("alert")


def test_an_unreadable_image_shows_an_error(failing_page: BrowserPage) -> None:
    page = failing_page.page
    choose(page, BROKEN)
    check_message(page, re.compile(r"broken\.png"))
    expect(page.locator("#bars")).to_be_hidden()
    expect(page.locator("#best")).to_be_hidden()
    choose(page, png(0))
    wait_for_answers(page)
    expect(page.locator("#trouble")).to_be_hidden()


def test_names_that_the_server_refuses_show_an_error(failing_page: BrowserPage) -> None:
    page = failing_page.page
    choose(page, png(0))
    replace_names(page, "x" * 201, "dice")
    check_message(page, re.compile("name"))
    assert "Try again" not in page.locator("#trouble").inner_text()
    replace_names(page, "dice", "dart")
    wait_for_answers(page)
    expect(page.locator("#trouble")).to_be_hidden()


@pytest.mark.slow  # encodes 1000 names
def test_a_long_list_of_names_stays_usable(failing_page: BrowserPage) -> None:
    page = failing_page.page
    many = [f"thing number {i}" for i in range(1001)]
    choose(page, png(0))
    page.get_by_role("checkbox", name="Compare with the fast approximation").check()
    replace_names(page, *many)
    expect(page.locator("#names-status")).to_have_text("At most 1000 names: the last one was left out.")
    expect(page.locator("#count")).to_have_text("1000")
    assert page.locator("#names").bounding_box()["height"] < 200  # type: ignore[index]
    expect(page.get_by_role("alert").filter(has_text="Fast: ")).to_be_visible(timeout=30_000)
    assert len(table_rows(page)) >= 8
    # All chips together are one stop of the Tab key.
    page.get_by_role("button", name="Edit as text").focus()
    stops = []
    for _ in range(4):
        page.keyboard.press("Tab")
        stops.append(page.evaluate("document.activeElement.id || document.activeElement.getAttribute('aria-label')"))
    assert "name" in stops


def test_an_image_that_is_too_large_is_not_sent(browser_page: BrowserPage, server: RunningServer) -> None:
    limits = json.loads(server.get("/classes").text)["limits"]
    browser_page.page.evaluate(
        """size => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(size + 1)], 'huge.png', { type: 'image/png' }));
            dispatchEvent(new DragEvent('drop', { dataTransfer: transfer }));
        }""",
        limits["upload_bytes"],
    )
    expect(browser_page.page.locator("#not-added")).to_have_text(
        "huge.png is 34 MB, but this server takes at most 34 MB: scale it down."
    )


def test_too_many_images_are_left_out(page: Page) -> None:
    choose(page, *(png(i % 3, f"{i}.png") for i in range(34)))
    expect(page.locator("#not-added")).to_have_text(
        "At most 32 images at a time: 32.png and the files after it were left out."
    )
    expect(page.get_by_role("list", name="Images to choose from").get_by_role("listitem")).to_have_count(32)
    wait_for_answers(page)
    expect(page.locator("#strip li span").last).not_to_be_empty(timeout=20_000)


def test_an_error_413_of_the_server_is_shown(browser: Browser, trained_run: Run) -> None:
    """The page checks sizes itself, so it is given a larger limit than the server has."""
    with serve_in_thread(trained_run, max_upload_mib=1) as server:
        browser_page = BrowserPage(browser, server.url)

        def with_larger_limit(route: Route) -> None:
            info = route.fetch().json()
            info["limits"]["upload_bytes"] *= 10
            route.fulfill(json=info)

        browser_page.page.route("**/classes", with_larger_limit)
        page = browser_page.open()
        choose(page, {"name": "noise.png", "mimeType": "image/png", "buffer": png()["buffer"] + bytes(1 << 20)})
        check_message(page, re.compile("1 MiB"))
        browser_page.context.close()


def test_the_page_retries_when_the_server_is_busy(failing_page: BrowserPage, trained_run: Run) -> None:
    page = failing_page.page
    message = "100 of at most 100 requests are in progress: try again in a moment"
    left = [2]

    def busy(route: Route) -> None:
        if left[0] == 0:
            return route.continue_()
        left[0] -= 1
        error = {"error": {"code": "busy", "message": message}}
        route.fulfill(status=503, json=error, headers={"Retry-After": "1"})

    page.route("**/predict", busy)
    choose(page, png(1))
    check_message(page, f"{message} (retrying)")
    wait_for_answers(page)
    expect(page.locator("#trouble")).to_be_hidden()
    assert first_column(page).items() <= expected(trained_run, image(1)).items()


def test_try_again_works_after_the_server_comes_back(failing_page: BrowserPage, trained_run: Run) -> None:
    page = failing_page.page
    choose(page, png(1))
    wait_for_answers(page)
    failing_page.context.set_offline(True)
    replace_names(page, "dice", "dart")
    check_message(page, "The server does not answer. Check that gopro serve is still running.Try again")
    failing_page.context.set_offline(False)
    page.get_by_role("button", name="Try again").click()
    wait_for_answers(page)
    expect(page.locator("#trouble")).to_be_hidden()
    assert first_column(page) == expected(trained_run, image(1), ["dice", "dart"])


def test_try_again_works_if_the_server_is_gone_from_the_start(browser: Browser, trained_run: Run) -> None:
    with serve_in_thread(trained_run) as server:
        browser_page = BrowserPage(browser, server.url)
        browser_page.page.route("**/classes", lambda route: route.abort())
        browser_page.page.goto(server.url)
        check_message(browser_page.page, re.compile("The server does not answer"))
        browser_page.page.unroute("**/classes")
        browser_page.page.get_by_role("button", name="Try again").click()
        expect(browser_page.page.get_by_role("button", name="Sample:")).to_have_count(12)
        browser_page.context.close()


def test_the_key_is_asked_for_once_per_tab(browser: Browser, trained_run: Run) -> None:
    with serve_in_thread(trained_run, key="open-sesame") as server:
        browser_page = BrowserPage(browser, server.url)
        page = browser_page.page
        page.goto(server.url)
        dialog = page.get_by_role("dialog", name="This server needs an API key")
        dialog.get_by_label("API key").fill("wrong")
        dialog.get_by_role("button", name="Continue").click()
        expect(dialog.get_by_role("alert")).to_have_text("This key is wrong.")
        page.keyboard.press("Escape")
        check_message(page, re.compile("API key"))
        page.get_by_role("button", name="Try again").click()
        dialog.get_by_label("API key").fill("open-sesame")
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Sample:")).to_have_count(12)
        page.reload()
        page.get_by_role("button", name="Sample:").first.click()
        wait_for_answers(page)
        expect(dialog).to_be_hidden()
        browser_page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_fits_the_width_and_is_readable(
    browser: Browser, server: RunningServer, width: int, scheme: Any
) -> None:
    browser_page = BrowserPage(browser, server.url, width, color_scheme=scheme, reduced_motion="reduce")
    page = browser_page.open()
    fits = "document.documentElement.scrollWidth <= innerWidth"
    assert page.evaluate(fits)
    assert page.evaluate(LOW_CONTRAST) == []
    choose(page, png(0))
    for box in page.get_by_role("checkbox").all():
        box.check()
    replace_names(page, "w" * 120, "a very long name of several words as in some data sets", "dice")
    page.locator("summary").click()
    choose(page, *(png(i, f"{'long' * 30}{i}.png") for i in range(3)), BROKEN)
    wait_for_answers(page)
    expect(page.locator(".broken")).to_be_visible()
    assert page.evaluate(fits)
    assert page.evaluate(LOW_CONTRAST) == []
    assert page.evaluate("document.getAnimations().length") == 0
    page.locator(".broken").click()
    expect(page.locator("#trouble")).to_be_visible()
    assert page.evaluate(fits)
    assert page.evaluate(LOW_CONTRAST) == []
    # Controls are at least 24 px wide and high (WCAG 2.2, target size).
    small = page.evaluate(
        """[...document.querySelectorAll('button, label')]
            .map(e => [e.outerHTML.slice(0, 90), e.getBoundingClientRect()])
            .filter(([, box]) => box.width && (box.width < 24 || box.height < 24)).map(([html]) => html)"""
    )
    assert small == []
    browser_page.context.close()
    assert [line for line in browser_page.problems if not line.startswith("Failed to load resource")] == []


def test_every_control_has_an_accessible_name(page: Page) -> None:
    choose(page, png(0), png(1))
    wait_for_answers(page)
    nameless = page.evaluate(
        """[...document.querySelectorAll('main button, main input, main img, main ul')]
            .filter(e => e.checkVisibility() && !e.textContent.trim() && !e.ariaLabel && !e.alt
                && !e.labels?.[0]?.textContent.trim() && !e.querySelector('img[alt]'))
            .map(e => e.outerHTML)"""
    )
    assert nameless == []
    table = page.get_by_role("table", name="Probability of each class name")
    expect(table.get_by_role("rowheader")).to_have_count(len(table_rows(page)))


def test_the_html_has_no_inline_script_or_style_and_no_other_host() -> None:
    html = (PAGE / "index.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bstyle=|\bon\w+=|https?:|//", html)
    for file in PAGE.iterdir():
        urls = re.findall(r"https?://[^\s\"']+", file.read_text(encoding="utf-8"))
        assert set(urls) <= {"http://www.w3.org/2000/svg"}, file
