"""The documentation site builds without a warning, fetches nothing from other servers, and links its pages."""

import html.parser
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install -e '.[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    return folder


class Addresses(html.parser.HTMLParser):
    """The addresses that a browser fetches to show a page, and those that the page links to."""

    def __init__(self, page: Path):
        super().__init__()
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.fetched += [attributes[name] for name in ("src", "srcset", "data") if name in attributes]
        if "href" in attributes and tag != "link":
            self.linked.append(attributes["href"])
        elif "href" in attributes and attributes.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(attributes["href"])


@pytest.mark.slow
def test_pages_fetch_nothing_from_other_servers(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    fetched = [address for page in pages for address in Addresses(page).fetched]
    assert len(pages) > 20 and len(fetched) > 100
    assert [a for a in fetched if re.match(r"(\w+:)?//", a)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", styles) == []


@pytest.mark.slow
def test_all_pages_exist_and_links_lead_to_pages(site: Path) -> None:
    """Links to files outside docs/ become links to the pages made from them."""
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= pages
    assert {"contributing.html", "changelog.html", "measured.html", "notebook.html"} <= pages
    method = Addresses(site / "how-it-works.html").linked
    assert "measured.html" in method and not any("src/gopro" in address for address in method)
    assert "packed_prompts.py" in (site / "how-it-works.html").read_text(encoding="utf-8")
    assert any("measured.html" in address for address in Addresses(site / "speed.html").linked)


@pytest.mark.slow
def test_the_api_page_shows_signatures_and_docstrings(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    for name in ("gopro.load", "gopro.Classifier.for_classes", "gopro.TrainConfig", "gopro.methods.base.Method"):
        assert f'id="{name}"' in page
    assert page.count("doc doc-contents") > 20 and "Passes over the training images." in page
