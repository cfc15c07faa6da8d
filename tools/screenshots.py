"""Take the screenshots of the documents: docs/images/page.png, page-phone.png and report.png.

    python -m tools.screenshots RUN REPORT

RUN is a run on `photos` (all classes), REPORT the report.html of a comparison on photographs. Needs a Chromium.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

IMAGES = Path(__file__).resolve().parents[1] / "docs" / "images"
SAMPLE = 6  # of the twelve; a kangaroo
OTHER_NAMES = ("kangaroo", "wallaby", "deer", "dog", "hare")
COLOURS = 256  # of the PNG files, which are then a third as large


def main(run: Path, report: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("no Chromium on this machine: install chromium or google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        with serving(run) as address:
            save(desktop_page(browser, address), "page")
            save(phone_page(browser, address), "page-phone", whole=True)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.goto(report.resolve().as_uri())
        page.locator("#images").evaluate("section => section.scrollIntoView({behavior: 'instant'})")
        page.wait_for_timeout(1000)  # until it is painted
        save(page, "report")
        browser.close()


@contextmanager
def serving(run: Path) -> Iterator[str]:
    """Run `gopro serve` on a free port and yield its address."""
    command = [sys.executable, "-m", "gopro.cli", "serve", str(run), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        try:
            address = next(found[0] for line in server.stderr if (found := re.search(r"http://[\d.:]+", line)))
            yield address
        finally:
            server.terminate()


def desktop_page(browser: Browser, address: str) -> Page:
    """Open the page, click a sample and compare with zero-shot CLIP."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")  # bars at their length
    page.goto(address)
    click_sample(page)
    page.get_by_role("checkbox", name="Compare with zero-shot").check()
    wait_for_answers(page)
    return page


def phone_page(browser: Browser, address: str) -> Page:
    """Open the page as on a phone in the dark, and ask for other class names."""
    page = browser.new_page(
        viewport={"width": 360, "height": 800}, device_scale_factor=1.5, color_scheme="dark", reduced_motion="reduce"
    )
    page.goto(address)
    page.get_by_role("button", name="Edit as text").click()
    page.get_by_role("textbox", name="Class names, one per line").fill("\n".join(OTHER_NAMES))
    page.get_by_role("button", name="Use these names").click()
    click_sample(page)
    return page


def click_sample(page: Page) -> None:
    """Click a sample and wait for its predictions."""
    page.get_by_role("button", name="Sample:").nth(SAMPLE).click()
    wait_for_answers(page)
    page.mouse.move(0, 0)


def wait_for_answers(page: Page) -> None:
    expect(page.locator("#bars")).to_be_visible(timeout=120_000)
    expect(page.locator("#bars")).to_have_attribute("aria-busy", "false", timeout=120_000)


def save(page: Page, name: str, *, whole: bool = False) -> None:
    """Write a screenshot of the window, or of the `whole` page."""
    file = IMAGES / f"{name}.png"
    page.screenshot(path=file, full_page=whole)
    with Image.open(file) as image:
        small = image.convert("RGB").quantize(COLOURS)
    small.save(file, optimize=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("report", type=Path)
    arguments = parser.parse_args()
    main(arguments.run, arguments.report)
