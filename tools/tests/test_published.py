"""docs/published.md agrees with the figures that the package holds."""

import csv
import re
from itertools import product

from tools.published import FOLDER, PUBLISHED, ROOT, published_page


def test_the_page_is_up_to_date() -> None:
    assert PUBLISHED.read_text(encoding="utf-8") == published_page(), "out of date: run python -m tools.published"


def test_every_figure_stands_in_the_linked_lines_of_its_file() -> None:
    page = published_page()
    rows = re.findall(r"^\| \[(\w+)\]\(\.\./(\S+)#L(\d+)-L(\d+)\) \| (.*) \|$", page, flags=re.MULTILINE)
    assert len(rows) == 3 * 12
    for data, file, first, last, cells in rows:
        lines = (ROOT / file).read_text(encoding="utf-8").splitlines()[int(first) - 1 : int(last)]
        figures = re.findall(r"\d+\.\d+", cells)
        assert len(lines) == len(figures) == 7
        assert all(line.startswith(f"{data},") and figure in line for line, figure in zip(lines, figures, strict=True))
    for file in ("cross_dataset", "domain_generalization"):
        lines = (ROOT / FOLDER / f"{file}.csv").read_text(encoding="utf-8").splitlines()
        for method, number in re.findall(rf"\[(\w+)\]\(\S+{file}\.csv#L(\d+)\)", page):
            assert lines[int(number) - 1].startswith(f"{method},")


def test_the_marked_figure_alone_contradicts_its_row() -> None:
    """The harmonic mean of base and new is the printed HM, up to rounding."""
    with (ROOT / FOLDER / "base_to_new.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    wrong = []
    for row in rows:
        base, new, hm = (float(row[name]) for name in ("base", "new", "hm"))
        means = [2 * b * n / (b + n) for b, n in product((base - 0.005, base + 0.005), (new - 0.005, new + 0.005))]
        if not min(means) - 0.0051 <= hm <= max(means) + 0.0051:
            wrong.append((row["dataset"], row["method"], row["new"]))
    assert wrong == [("oxford_flowers", "CoCoOp", "71.15")]
    assert "71.15 †" in published_page() and published_page().count("†") == 2  # the mark and its note
