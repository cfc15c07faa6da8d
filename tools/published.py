"""Write docs/published.md, the tables of the GOPro paper, from the figures that the package holds.

python -m tools.published
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from gopro.benchmark.report.tables.published import CAVEATS, FAULTY, METHODS

ROOT = Path(__file__).resolve().parents[1]
PUBLISHED = ROOT / "docs" / "published.md"
FOLDER = "src/gopro/assets/published"
FAULT_MARK = "†"

HEAD = """# The paper's figures

These are the three result tables of the GOPro paper (arXiv 2308.11605), as printed: accuracy in percent with CLIP's
ViT-B/16 and 16 images per class. `python -m tools.published` writes this page from the files that the package holds. In
the repository, the names of data sets in the first table and of methods in the others link to the lines of their file.
The best figure in each row is bold. [Protocols](protocols.md) explains what is measured, and [the paper's tables, on
real data](reproduce.md) how to measure it yourself. `gopro report` prints these figures beside yours.

The columns have the paper's names. In this package the methods are called:

"""


def published_page() -> str:
    """Return the text of the page."""
    return "\n".join([HEAD + _names(), _base_to_new(), *_transfer()]).rstrip() + "\n"


def _names() -> str:
    """List our names of the paper's methods, then those that only stand beside its figures."""
    names = {paper: [f"`{name}`" for name in ours if name not in CAVEATS] for paper, ours in METHODS.items()}
    lines = [f"- {paper}: {' and '.join(ours)}" for paper, ours in names.items()]
    return "\n".join([*lines, "", *(f"`{name}` is {note}." for name, note in CAVEATS.items())]) + "\n"


def _base_to_new() -> str:
    """Return one table for each of base, new and HM: data sets by methods."""
    file = f"{FOLDER}/base_to_new.csv"
    rows = _read(file)
    methods = list(dict.fromkeys(row["method"] for row in rows))
    blocks: dict[str, dict[str, dict[str, str]]] = {}
    lines: dict[str, list[int]] = {}
    for number, row in enumerate(rows, 2):
        blocks.setdefault(row["dataset"], {})[row["method"]] = row
        lines.setdefault(row["dataset"], []).append(number)
    parts = [f"## Base-to-new\n\nSource: [`{file}`](../{file}).\n"]
    notes = set()
    for column, heading in (("base", "Base"), ("new", "New"), ("hm", "HM")):
        table = [_heading(methods)]
        for block, figures in blocks.items():
            marked = {name: FAULTY.get((block, heading, name)) for name in methods}
            notes |= {note for note in marked.values() if note}
            cells = _bold_best([figures[name][column] for name in methods])
            cells = [
                f"{cell} {FAULT_MARK}" if marked[name] else cell for name, cell in zip(methods, cells, strict=True)
            ]
            link = f"[{block}](../{file}#L{min(lines[block])}-L{max(lines[block])})"
            table.append(f"| {link} | {' | '.join(cells)} |")
        parts.append(f"### {heading}\n\n" + "\n".join(table) + "\n")
    return "\n".join([*parts, *(f"{FAULT_MARK} {note}.\n" for note in sorted(notes))])


def _transfer() -> list[str]:
    """Return a table for each of the two protocols with one source: methods by tested data sets, turned on its side."""
    parts = []
    for name, heading in (("cross_dataset", "Cross-dataset"), ("domain_generalization", "Domain generalization")):
        file = f"{FOLDER}/{name}.csv"
        rows = _read(file)
        names = [f"[{row['method']}](../{file}#L{number})" for number, row in enumerate(rows, 2)]
        table = [_heading(names)]
        for data in list(rows[0])[1:]:
            table.append(f"| {data} | {' | '.join(_bold_best([row[data] for row in rows]))} |")
        parts.append(
            f"## {heading}\n\nTrained on ImageNet. Source: [`{file}`](../{file}).\n\n" + "\n".join(table) + "\n"
        )
    return parts


def _heading(names: Sequence[str]) -> str:
    return f"| | {' | '.join(names)} |\n|---|{'--:|' * len(names)}"


def _bold_best(figures: Sequence[str]) -> list[str]:
    best = max(map(float, figures))
    return [f"**{figure}**" if float(figure) == best else figure for figure in figures]


def _read(file: str) -> list[dict[str, str]]:
    with (ROOT / file).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


if __name__ == "__main__":
    PUBLISHED.write_text(published_page(), encoding="utf-8")
