"""Tables in LaTeX, for a document that uses booktabs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from gopro.benchmark.report.cells import compared, figure, heading, is_wide, label, notes, one_line, pieces
from gopro.benchmark.report.table import Block, Cell, Difference, Line, Table

PAGE = 40
"""Lines of methods that fit a page."""

_BREAK = r" \\ "

_ESCAPES = {
    **{character: f"\\{character}" for character in "#$%&_{}"},
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    # In front of a line these would be read as arguments of the \\ before it.
    "[": "{[}",
    "*": "{*}",
    "±": r"$\pm$",
    "†": r"\dag{}",
    "–": "--",
    "−": "$-$",
}


def latex(tables: Iterable[Table]) -> str:
    r"""`table` environments, best means in \textbf, each with its setting in the caption and its notes below.

    The document needs \usepackage{booktabs} and nothing else. A table too wide for one line a figure goes over both
    columns, with deviation and difference below the mean; one longer than a page goes on in another environment. The
    differences to one method are an environment of their own.
    """
    return "\n".join(["% \\usepackage{booktabs}", *(part for table in tables for part in _environments(table))])


def _environments(table: Table) -> Iterator[str]:
    pages: list[list[Block]] = [[]]
    for block in table.blocks:
        if pages[-1] and sum(len(there.lines) for there in pages[-1]) + len(block.lines) > PAGE:
            pages.append([])
        pages[-1].append(block)
    lines = [line for block in table.blocks for line in block.lines]
    wide = is_wide(table.columns, ([one_line(line, cell) for cell in line.cells] for line in lines))
    for page in pages:
        caption = f"{heading(table)}, continued." if page is not pages[0] else f"{heading(table)}. {table.lead}"
        bodies = [_body(block, len(table.heads) > 1, wide) for block in page]
        said = notes(table) if page is pages[-1] else ()
        yield _environment(caption, table.heads, table.columns, bodies, said, wide)
    if (compare := table.differences) is not None:
        texts = [[" ".join(compared(cell)) for cell in line] for line in compare.lines.values()]
        wide = is_wide(compare.columns, texts)
        body = [
            _row([_escaped(method), *(_difference(cell, wide) for cell in line)])
            for method, line in compare.lines.items()
        ]
        caption = f"{heading(table)}. {compare.title}. {compare.lead}"
        yield _environment(caption, ("Method",), compare.columns, [body], compare.notes, wide)


def _body(block: Block, titled: bool, wide: bool) -> list[str]:
    rows = []
    for line in block.lines:
        title = [_escaped(block.title) if line is block.lines[0] else ""] if titled else []
        rows.append(_row([*title, _escaped(label(line)), *(_figure(line, cell, wide) for cell in line.cells)]))
    return rows


def _environment(
    caption: str,
    heads: Sequence[str],
    columns: Sequence[str],
    bodies: Iterable[Sequence[str]],
    said: Iterable[str],
    wide: bool,
) -> str:
    kind = "table*" if wide else "table"
    titles = [_stacked("b", map(_escaped, pieces(name))) if wide else _escaped(name) for name in columns]
    lines = [
        f"\\begin{{{kind}}}",
        "\\centering",
        f"\\caption{{{_escaped(caption)}}}",
        "\\scriptsize\\setlength{\\tabcolsep}{2pt}" if wide else "\\small",
        f"\\begin{{tabular}}{{@{{}}{'l' * len(heads)}{'r' * len(columns)}@{{}}}}",
        "\\toprule",
        _row([*heads, *titles]),
        *(line for body in bodies for line in ("\\midrule", *body)),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    if sentences := [f"{_escaped(note)}." for note in said]:
        lines += ["\\par\\smallskip", "\\begin{minipage}{\\linewidth}\\footnotesize"]
        lines += [f"{_BREAK}\n".join(sentences), "\\end{minipage}"]
    return "\n".join([*lines, f"\\end{{{kind}}}"]) + "\n"


def _row(cells: Iterable[str]) -> str:
    return " & ".join(cells) + r" \\"


def _figure(line: Line, cell: Cell, wide: bool) -> str:
    mean, std, difference = figure(line, cell)
    mean = _escaped(mean)
    parts = [
        f"\\textbf{{{mean}}}" if cell.best else mean,
        *([f"{{\\tiny$\\pm${std}}}"] if std else []),
        *([f"{{\\tiny(${difference}$)}}"] if difference else []),
    ]
    return _stacked("t", parts) if wide and len(parts) > 1 else "".join(parts)


def _difference(cell: Difference | None, wide: bool) -> str:
    mean, interval = map(_escaped, compared(cell))
    parts = [
        f"\\textbf{{{mean}}}" if cell and cell.clear else mean,
        *([f"{{\\tiny\\enspace{interval}}}"] if interval else []),
    ]
    return _stacked("t", parts) if wide and interval else "".join(parts)


def _stacked(position: str, parts: Iterable[str]) -> str:
    return rf"\begin{{tabular}}[{position}]{{@{{}}r@{{}}}}{_BREAK.join(parts)}\end{{tabular}}"


def _escaped(text: str) -> str:
    """The text on one line, with what LaTeX would take for its own."""
    return re.sub(r".", lambda found: _ESCAPES.get(found[0], found[0]), " ".join(text.split()))
