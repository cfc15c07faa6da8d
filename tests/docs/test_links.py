"""Commands in documents parse, and links between documents lead to files."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

from gopro import cli
from tests.support.pages import PAGES, ROOT, blocks, commands


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_documents_parse(page: Path) -> None:
    for command in [command for _, block in blocks(page, "sh") for command in commands(block)]:
        cli.app.config = ()
        cli.app.parse_args(shlex.split(command, comments=True)[1:], exit_on_error=False, print_error=False)


def test_make_has_the_two_commands_of_the_readme() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test"):
        assert f"make {target}" in (ROOT / "README.md").read_text(encoding="utf-8")
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_documents_lead_to_files(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_menu() -> None:
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    listed = set(re.findall(r"[\w/-]+\.md", yaml.safe_dump(config["nav"])))
    assert {page.name for page in (ROOT / "docs").glob("*.md")} <= listed
