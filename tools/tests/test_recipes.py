"""docs/reproduce.md agrees with the methods' recipes and published figures."""

import re

from gopro.methods.registry import METHODS
from tools.recipes import PAGE, with_table


def test_the_table_of_recipes_is_up_to_date() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_table(page), "out of date: run python -m tools.recipes"


def test_every_cell_with_a_recipe_of_the_authors_links_to_their_files() -> None:
    page = PAGE.read_text(encoding="utf-8")
    urls = dict(re.findall(r"^\[(\d+)\]: (https://github\.com/\S+/blob/[0-9a-f]{40}/\S+)$", page, flags=re.MULTILINE))
    rows = [
        line.strip("| ").split(" | ")
        for line in page.splitlines()
        if re.match(r"\| `[\w-]+` \| .*(epoch|recipe)", line)
    ]
    assert {name.strip("`") for name, *_ in rows} >= {"coop", "mmrl", "tip-adapter-f", "gopro", "gopro-paper"}
    for name, *cells in rows:
        assert len(cells) == 3
        for cell in cells:
            for line in cell.split("<br>"):
                links = re.findall(r"\[(\w+)\]\[(\d+)\]", line)
                assert links or line.startswith(("ours: ", "as base-to-new", "no recipe of theirs")), (name, line)
                assert all(urls[number].endswith(".yaml") == (word == "config") for word, number in links)


def test_the_published_averages_are_those_of_the_docstrings() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)`[^|]* \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|", page, flags=re.MULTILINE)
    assert len(rows) == 10
    for name, base, new, hm in rows:
        assert f"{base}/{new}/{hm}" in " ".join((METHODS[name].__doc__ or "").split()), name
        assert abs(2 * float(base) * float(new) / (float(base) + float(new)) - float(hm)) < 0.02
