"""Tables in LaTeX, for a document that uses booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from gopro.benchmark.report.tables.grid import Grid, GridCell, GridRow, breakable_parts, grids, named_rows
from gopro.benchmark.report.tables.table import Table

ROWS_PER_PAGE = 40
"""Rows of methods that fit on a page."""

_LINE_BREAK = r" \\ "

_ESCAPES = {
    **{character: f"\\{character}" for character in "#$%&_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # At the start of a row, LaTeX would read these as arguments of the \\ before it.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "†": r"\dag{}",
    "‡": r"\ddag{}",
    "–": "--",
    "−": "$-$",
}


def latex(tables: Iterable[Table]) -> str:
    r"""Render each table as a `table` environment, with the setting in the caption and the notes below.

    The document needs \usepackage{booktabs} and no other package. The best means are in \textbf. A table too wide for
    one column spans both and stacks the parts of each figure; one longer than a page continues in another environment.
    Differences from one method get an environment of their own.
    """
    environments = [part for table in tables for grid in grids(table) for part in _environments(grid)]
    return "\n".join(["% \\usepackage{booktabs}", *environments])


def _environments(grid: Grid) -> Iterator[str]:
    pages: list[list[Sequence[GridRow]]] = [[]]
    for block in grid.blocks:
        if pages[-1] and sum(map(len, pages[-1])) + len(block) > ROWS_PER_PAGE:
            pages.append([])
        pages[-1].append(block)
    title = f"{grid.title}. {grid.subtitle}" if grid.subtitle else grid.title
    for page in pages:
        caption = f"{title}. {grid.lead}" if page is pages[0] else f"{title}, continued."
        yield _environment(grid, caption, page, grid.notes if page is pages[-1] else ())


def _environment(grid: Grid, caption: str, blocks: Iterable[Sequence[GridRow]], notes: Iterable[str]) -> str:
    wide = grid.is_wide
    kind = "table*" if wide else "table"
    titles = [_stacked("b", map(_escaped, breakable_parts(name))) if wide else _escaped(name) for name in grid.columns]
    lines = [
        f"\\begin{{{kind}}}",
        "\\centering",
        f"\\caption{{{_escaped(caption)}}}",
        "\\scriptsize\\setlength{\\tabcolsep}{2pt}" if wide else "\\small",
        f"\\begin{{tabular}}{{@{{}}{'l' * len(grid.heads)}{'r' * len(grid.columns)}@{{}}}}",
        "\\toprule",
        _row([*grid.heads, *titles]),
    ]
    for block in blocks:
        lines.append("\\midrule")
        for names, row in named_rows(block):
            lines.append(_row([*map(_escaped, names), *(_figure(cell, wide) for cell in row.cells)]))
    lines += ["\\bottomrule", "\\end{tabular}"]
    if sentences := [f"{_escaped(note).removesuffix('.')}." for note in notes]:
        lines += ["\\par\\smallskip", "\\begin{minipage}{\\linewidth}\\footnotesize"]
        lines += [f"{_LINE_BREAK}\n".join(sentences), "\\end{minipage}"]
    return "\n".join([*lines, f"\\end{{{kind}}}"]) + "\n"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _figure(cell: GridCell, wide: bool) -> str:
    value, *small = map(_escaped, cell.parts)
    value = f"\\textbf{{{value}}}" if cell.bold else value
    parts = [value, *(f"{{\\tiny\\enspace {part}}}" for part in small)]
    return _stacked("t", parts) if wide and small else "".join(parts)


def _stacked(position: str, parts: Iterable[str]) -> str:
    return rf"\begin{{tabular}}[{position}]{{@{{}}r@{{}}}}{_LINE_BREAK.join(parts)}\end{{tabular}}"


def _escaped(text: str) -> str:
    """Return the text on one line with LaTeX's special characters escaped."""
    return re.sub(r".", lambda match: _ESCAPES.get(match[0], match[0]), " ".join(text.split()))
