"""What was tried and how often it held, and the place of it in docs/reliability.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """One thing that was tried.

    Attributes:
        what: it, in a few words.
        tried: how often.
        held: how often it ended as it must.
        note: what was seen, and of what did not hold, what happened.
    """

    what: str
    tried: int
    held: int
    note: str = ""


def table(rows: Sequence[Row]) -> str:
    """The rows in Markdown."""
    lines = ["| what | tried | held | seen |", "|---|--:|--:|---|"]
    for row in rows:
        what, note = (text.replace("|", "\\|").replace("\n", " ") for text in (row.what, row.note))
        lines.append(f"| {what} | {row.tried} | {row.held} | {note} |")
    return "\n".join(lines)


def written(page: str, name: str, content: str) -> str:
    """The page with what stands between the markers of a module replaced.

    Raises:
        ValueError: the page has no such markers.
    """
    begin, end = f"<!-- torture: {name} -->\n", f"<!-- end: {name} -->\n"
    head, begun, rest = page.partition(begin)
    _, ended, tail = rest.partition(end)
    if not begun or not ended:
        raise ValueError(f"no place for {name}: it needs the lines {begin.strip()} and {end.strip()}")
    return f"{head}{begin}\n{content}\n\n{end}{tail}"
