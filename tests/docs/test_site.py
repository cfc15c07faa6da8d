"""The documentation site: it builds without a warning, asks no other server for anything, and shows what is current."""

import html.parser
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gopro.benchmark.suites import SUITES
from tools.commands import COMMANDS, commands_page
from tools.notebook import PATH, executed

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


class Asked(html.parser.HTMLParser):
    """The addresses that a browser fetches when it shows a page, and those of other pages that it links to."""

    def __init__(self, page: Path):
        super().__init__()
        self.fetched: list[str] = []
        self.linked: list[str] = []
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.fetched += [given[name] for name in ("src", "srcset", "data") if name in given]
        if "href" in given and tag != "link":
            self.linked.append(given["href"])
        elif "href" in given and given.get("rel") not in ("canonical", "prev", "next"):
            self.fetched.append(given["href"])


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    fetched = [address for page in pages for address in Asked(page).fetched]
    assert len(pages) > 20 and len(fetched) > 100
    assert [a for a in fetched if re.match(r"(\w+:)?//", a)] == []
    styles = "".join(path.read_text(encoding="utf-8") for path in site.rglob("*.css"))
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", styles) == []


def test_pages_are_all_there_and_link_to_one_another(site: Path) -> None:
    """Also the links that the site makes of links to files outside docs/."""
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert {f"{page.stem}.html" for page in (ROOT / "docs").glob("*.md")} <= pages
    assert {"contributing.html", "changelog.html", "measured.html", "notebook.html"} <= pages
    method = Asked(site / "how-it-works.html").linked
    assert "measured.html" in method and not any("src/gopro" in address for address in method)
    assert "packed.py" in (site / "how-it-works.html").read_text(encoding="utf-8")
    assert any("measured.html" in address for address in Asked(site / "speed.html").linked)


def test_every_page_is_in_the_menu() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w/-]+\.md", yaml.safe_dump(config["nav"])))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= listed


def test_the_api_page_shows_signatures_and_docstrings(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    for name in ("gopro.load", "gopro.Classifier.for_classes", "gopro.TrainConfig", "gopro.methods.base.Method"):
        assert f'id="{name}"' in page
    assert "The same classifier over other names" in page and "Training images a class." in page


def test_the_commands_page_is_current() -> None:
    assert COMMANDS.read_text(encoding="utf-8") == commands_page(), "make it anew: python -m tools.commands"


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path) -> None:
    import nbformat

    stored = nbformat.read(PATH, as_version=4)
    run = executed(PATH, tmp_path)
    for before, after in zip(stored.cells, run.cells, strict=True):
        kinds = [[output.output_type for output in cell.get("outputs", [])] for cell in (before, after)]
        assert kinds[0] == kinds[1], f"not what is stored: run python -m tools.notebook\n{after.source}"
    printed = "".join(output.get("text", "") for cell in run.cells for output in cell.get("outputs", []))
    zeroshot, ours = map(int, re.findall(r"(\d+) of \d+ test images right", printed))
    assert ours > zeroshot


def test_runs_of_the_papers_tables_are_as_many_as_the_page_says() -> None:
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
