"""Write the tables of results in the documents from the results of the examples, docs/example and its neighbours.

python -m tools.benchmark_tables
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from gopro.benchmark.report.tables.protocol_tables import tables
from gopro.benchmark.report.tables.table import AVERAGE, Cell, Difference, Table
from gopro.methods.registry import METHODS
from gopro.runs.results import Results

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE, PHOTOS, PARTS, MIXED, UNLABELED, TUNED = (
    ROOT / "docs" / f"example{name}" for name in ("", "-photos", "-parts", "-mixed", "-unlabeled", "-tuned")
)
BEGIN, END = "<!-- python -m tools.benchmark_tables writes this table -->\n", "<!-- end of the table -->\n"
AGAINST = "gopro"
HEAD = "| | Base | New | HM | Cross-dataset | Domain generalization |\n|---|--:|--:|--:|--:|--:|\n"
AVERAGES = (("base-to-new", 3), ("cross-dataset", 1), ("domain-generalization", 1))
"""The protocols of `HEAD`, and how many of its columns each has."""
SHORT = ("zeroshot", "tip-adapter", "coop", "cocoop", "kgcoop", "maple", "promptsrc", "mmrl", "gopro-paper", AGAINST)
"""The methods of the table in README.md."""
PART_COLUMNS = (
    ("base-to-new", "photo", ("Caltech101: base", "new", "HM")),
    ("domain-generalization", "photo", ("PACS",)),
    ("base-to-new", "emoji", ("emoji-activities: base", "new", "HM")),
)
"""Protocols and backbones of the table of GOPro's parts, and the titles of its columns."""
PART_NAMES = {
    "statistics=none": ("style and content of the image", "paper"),
    "con=0": ("contrastive loss", "paper"),
    "sem=0": ("prompt consistency", "paper"),
    "con=0,sem=0": ("both losses", "paper"),
    "lr=1e-9": ("training of prompts and projector", "paper"),
    "anchor=0": ("anchor", "ours"),
    "probe=false": ("probe", "ours"),
    "gate=0": ("gate", "ours"),
    "gate=0.9": ("a tenth of the gate", "ours"),
    "hubness=0": ("hubness", "ours"),
}
"""What each variant leaves out, and whose it is."""
FREE = f"{AGAINST}[probe=false,gate=0,hubness=0,anchor=0]"
FREE_WITHOUT = f"{FREE[:-1]},statistics=none]"
MIXED_NAMES = {FREE: "free", FREE_WITHOUT: "free, `statistics=none`"}
"""What the page calls methods of the table of mixed styles."""
MIXED_PAIRS = (
    (AGAINST, f"{AGAINST}[statistics=none]"),
    (FREE, FREE_WITHOUT),
    (f"{AGAINST}[gate=0]", AGAINST),
    (AGAINST, "zeroshot"),
    (AGAINST, "linear-probe"),
    (AGAINST, "tip-adapter-f"),
    (FREE_WITHOUT, "coop"),
    (FREE_WITHOUT, AGAINST),
)
"""Methods whose averages over the domains that were left out are compared."""
UNLABELED_HEAD = f"| | Caltech101: base | new | HM | emoji-activities: base | new | HM |\n|---|{'--:|' * 6}\n"
SOLVED = f"{AGAINST}[unlabeled_shots=8]"
TEACHER = f"{AGAINST}[unlabeled_shots=8,unlabeled_steps=true,con=0,sem=0]"
UNLABELED_PAIRS = (
    ("8 images per class", SOLVED, AGAINST),
    ("32 instead of 8", f"{AGAINST}[unlabeled_shots=32]", SOLVED),
    ("`consistency` in the steps", TEACHER, SOLVED),
    (
        "contrastive loss and prompt consistency in the steps",
        f"{AGAINST}[unlabeled_shots=8,unlabeled_steps=true]",
        TEACHER,
    ),
)
"""What is compared of images without labels: the rows with and without it."""


def main_methods(rows: Sequence[dict[str, object]]) -> list[str]:
    """Return the methods of the results without the variants of gopro and those that base-to-new cannot test."""
    tested = dict.fromkeys(str(row["method"]) for row in rows if row["classes"] == "new")
    return [method for method in tested if not method.startswith(f"{AGAINST}[")]


def full_table(rows: Sequence[dict[str, object]]) -> str:
    """Return averages ± standard deviation of all methods, and whether they differ from gopro's."""
    figures = averages(rows)
    lines = [
        f"| {method} | {' | '.join(_with_sign(cell, change) for cell, change in figures[method])} |"
        for method in main_methods(rows)
    ]
    return HEAD + "\n".join(lines) + "\n"


def short_table(rows: Sequence[dict[str, object]]) -> str:
    """Return the averages of the most important methods alone."""
    figures = averages(rows)
    methods = [method for method in SHORT if method in figures]
    lines = [f"| {method} | {' | '.join(_mean(cell) for cell, _ in figures[method])} |" for method in methods]
    return HEAD + "\n".join(lines) + "\n"


def few_shot_table(rows: Sequence[dict[str, object]]) -> str:
    """Return the accuracy ± standard deviation by number of shots, of methods on one data set."""
    [table] = [table for table in tables(rows, AGAINST) if table.protocol == "few-shot"]
    [block] = table.blocks
    lines = [f"| {line.label} | {' | '.join(map(_with_best, line.cells))} |" for line in block.lines]
    return f"| | {' | '.join(table.columns)} |\n|---|{'--:|' * len(table.columns)}\n" + "\n".join(lines) + "\n"


def parts_table(rows: Sequence[dict[str, object]]) -> str:
    """Return what leaving out each of gopro's parts changes, and the interval of the paired difference."""
    compared = tables(rows, AGAINST)
    columns = [
        [changes for table in compared if (changes := table.differences) and _is(table, protocol, backbone)]
        for protocol, backbone, _ in PART_COLUMNS
    ]
    titles = [title for _, _, titles in PART_COLUMNS for title in titles]
    lines = [f"| left out | setting | whose | {' | '.join(titles)} |", f"|---|---|---|{'--:|' * len(titles)}"]
    for setting, (name, whose) in PART_NAMES.items():
        cells: list[Difference | None] = []
        for found, (_, _, own) in zip(columns, PART_COLUMNS, strict=True):
            cells += (found[0].lines.get(f"{AGAINST}[{setting}]") if found else None) or (None,) * len(own)
        lines.append(f"| {name} | `{setting}` | {whose} | {' | '.join(map(_with_interval, cells))} |")
    return "\n".join(lines) + "\n"


def mixed_table(rows: Sequence[dict[str, object]]) -> str:
    """Return the mean accuracy on each domain that was left out, on all of them, and on the domains trained on."""
    shown = [row for row in rows if row["backbone"] == "photo"]
    [table] = tables(shown, AGAINST)
    sources = [block.title for block in table.blocks]
    left_out = [next(name for name in table.columns if "+" not in name and name not in source) for source in sources]
    titles = [name.removeprefix("pacs:").removesuffix(" (part)").replace("_", " ") for name in left_out]
    lines = [f"| method | {' | '.join(titles)} | average | trained styles |", f"|---|{'--:|' * (len(titles) + 2)}"]
    for method in dict.fromkeys(str(row["method"]) for row in shown):
        found = [line for block in table.blocks for line in block.lines if line.label == method]
        new, own = (
            [line.cells[table.columns.index(name)].measured.mean for line, name in zip(found, names, strict=True)]
            for names in (left_out, sources)
        )
        means = [*new, sum(new) / len(new), sum(own) / len(own)]
        lines.append(f"| {_mixed_name(method)} | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    return "\n".join(lines) + "\n"


def mixed_differences(rows: Sequence[dict[str, object]]) -> str:
    """Return paired differences of the averages over the domains that were left out, with their intervals."""
    lines = ["| | points |", "|---|--:|"]
    for method, against in MIXED_PAIRS:
        [table] = tables([row for row in rows if row["backbone"] == "photo"], against)
        assert table.differences is not None
        change = table.differences.lines[method][-1]
        lines.append(f"| {_mixed_name(method)} − {_mixed_name(against)} | {_with_interval(change)} |")
    return "\n".join(lines) + "\n"


def _mixed_name(method: str) -> str:
    return MIXED_NAMES.get(method, f"`{method}`" if method.startswith(AGAINST) else method)


def unlabeled_table(rows: Sequence[dict[str, object]]) -> str:
    """Return the accuracies of methods that have seen images without labels, and whether they differ from gopro's."""
    lines = []
    for method in dict.fromkeys(str(row["method"]) for row in rows):
        pairs = [pair for table in _unlabeled(rows, AGAINST) for pair in _cells(table, method, 3)]
        lines.append(f"| `{method}` | {' | '.join(_with_sign(cell, change) for cell, change in pairs)} |")
    return UNLABELED_HEAD + "\n".join(lines) + "\n"


def unlabeled_differences(rows: Sequence[dict[str, object]]) -> str:
    """Return what each use of images without labels changes, with the interval of the paired difference."""
    lines = []
    for name, method, against in UNLABELED_PAIRS:
        pairs = [pair for table in _unlabeled(rows, against) for pair in _cells(table, method, 3)]
        lines.append(f"| {name} | {' | '.join(_with_interval(change) for _, change in pairs)} |")
    return UNLABELED_HEAD + "\n".join(lines) + "\n"


def _unlabeled(rows: Sequence[dict[str, object]], against: str) -> list[Table]:
    """Return the tables of the two backbones in the order of `UNLABELED_HEAD`."""
    return [
        table
        for backbone in ("photo", "emoji")
        for table in tables([row for row in rows if row["backbone"] == backbone], against)
    ]


def tuned_photos(rows: Sequence[dict[str, object]]) -> str:
    return _tuned_table(rows, "photo")


def tuned_emoji(rows: Sequence[dict[str, object]]) -> str:
    return _tuned_table(rows, "emoji")


def _tuned_table(rows: Sequence[dict[str, object]], backbone: str) -> str:
    """Return the averages of methods with their recipes and with chosen settings, compared with gopro's."""
    rows = [row for row in rows if row["backbone"] == backbone]
    by_protocol = {table.protocol: table for table in tables(rows, AGAINST)}
    first, rule = HEAD.splitlines()
    lines = [first.replace("| |", "| | settings |", 1), rule.replace("|---|", "|---|---|", 1)]
    methods = list(dict.fromkeys(str(row["method"]) for row in rows))
    names = list(METHODS)
    for method in sorted(methods, key=lambda method: (names.index(method.partition("[")[0]), "[" in method)):
        name, _, chosen = method.partition("[")
        pairs = [pair for protocol, count in AVERAGES for pair in _cells(by_protocol[protocol], method, count)]
        settings = f"`{chosen.rstrip(']')}`" if chosen else ""
        lines.append(f"| {name} | {settings} | {' | '.join(_with_sign(cell, change) for cell, change in pairs)} |")
    return "\n".join(lines) + "\n"


def unlabeled_elsewhere(rows: Sequence[dict[str, object]]) -> str:
    """Return the accuracies on each target without and with its own images, and the interval of the difference."""
    without = f"{AGAINST}[unlabeled_shots=0]"
    lines = ["| trained on | tested on | without | with its images | difference |", "|---|---|--:|--:|--:|"]
    for target in dict.fromkeys(str(row["data"]) for row in rows):
        [table] = tables([row for row in rows if row["data"] == target], without)
        cells = [_cells(table, method, 1)[0] for method in (without, AGAINST)]
        source = next(str(row["source"]) for row in rows if row["data"] == target)
        names = [name.removesuffix(" (part)").replace("_", " ") for name in (source, target)]
        figures = [_mean(cell) for cell, _ in cells]
        lines.append(f"| {' | '.join([*names, *figures, _with_interval(cells[1][1])])} |")
    return "\n".join(lines) + "\n"


def with_tables(page: str, written: Sequence[str]) -> str:
    """Return the page with other tables between the marks, in their order."""
    first, *rest = page.split(BEGIN)
    parts = [f"{BEGIN}\n{table}\n{END}{old.partition(END)[2]}" for old, table in zip(rest, written, strict=True)]
    return "".join([first, *parts])


def averages(rows: Sequence[dict[str, object]]) -> dict[str, list[tuple[Cell | None, Difference | None]]]:
    """Return the five averages of each method, in the order of `HEAD`, and their differences from gopro's."""
    shown = [row for row in rows if row["method"] in main_methods(rows)]  # the best of these is bold
    by_protocol = {table.protocol: table for table in tables(shown, AGAINST)}
    return {
        method: [pair for protocol, count in AVERAGES for pair in _cells(by_protocol[protocol], method, count)]
        for method in main_methods(rows)
    }


def _cells(table: Table, method: str, count: int) -> list[tuple[Cell | None, Difference | None]]:
    """Return the last `count` averages of a method in a table."""
    block = next((block for block in table.blocks if block.title == AVERAGE), table.blocks[-1])
    line = next((line for line in block.lines if line.label == method and not line.published), None)
    changes = table.differences.lines.get(method) if table.differences is not None else None
    cells = (None,) * count if line is None else line.cells[-count:]
    return list(zip(cells, ((None,) * count if changes is None else changes[-count:]), strict=True))


def _is(table: Table, protocol: str, backbone: str) -> bool:
    return table.protocol == protocol and table.setting.startswith(f"{backbone},")


def _with_interval(change: Difference | None) -> str:
    if change is None:
        return ""
    mean = _signed(change.mean)
    if change.interval is None:
        return mean
    return f"{mean} ({' to '.join(map(_signed, change.interval))})"


def _signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−").replace("−0.0", "0.0").replace("+0.0", "0.0")


def _with_best(cell: Cell) -> str:
    if not cell.measured.count:
        return ""
    return f"**{cell.measured}**" if cell.best else str(cell.measured)


def _mean(cell: Cell | None) -> str:
    return "" if cell is None or not cell.measured.count else f"{cell.measured.mean:.2f}"


def _with_sign(cell: Cell | None, change: Difference | None) -> str:
    if cell is None or not cell.measured.count:
        return ""
    text = _with_best(cell)
    return f"{text} {'+' if change.mean > 0 else '−'}" if change is not None and change.excludes_zero else text


Write = Callable[[Sequence[dict[str, object]]], str]
PAGES: dict[str, tuple[tuple[Path, Write], ...]] = {
    "README.md": ((EXAMPLE, short_table),),
    "docs/benchmark.md": ((EXAMPLE, full_table),),
    "docs/photo.md": ((PHOTOS, full_table), (PHOTOS, few_shot_table)),
    "docs/method.md": (
        (PARTS, parts_table),
        (MIXED, mixed_table),
        (MIXED, mixed_differences),
        (UNLABELED, unlabeled_table),
        (UNLABELED, unlabeled_differences),
        (UNLABELED / "elsewhere", unlabeled_elsewhere),
    ),
    "docs/tuning.md": ((TUNED, tuned_photos), (TUNED, tuned_emoji)),
}
"""The tables of each page in their order, and the examples that they are made from."""


def current(page: str) -> str:
    """Return a page with the tables of the examples' results."""
    written = [write(Results(example / "results.jsonl").rows) for example, write in PAGES[page]]
    return with_tables((ROOT / page).read_text(encoding="utf-8"), written)


def main() -> None:
    for page in PAGES:
        (ROOT / page).write_text(current(page), encoding="utf-8")


if __name__ == "__main__":
    main()
