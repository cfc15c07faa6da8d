"""Write the table of recipes in docs/reproduce.md from what the methods declare.

python -m tools.recipes
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from gopro.methods.base import Method
from gopro.methods.describe_recipe import RecipeLine, describe_recipe
from gopro.methods.recipe import Repository, Task, Training
from gopro.methods.registry import METHODS, parse_method

PAGE = Path(__file__).resolve().parents[1] / "docs" / "reproduce.md"
BEGIN, END = "<!-- python -m tools.recipes writes this table -->\n", "<!-- end of the table -->\n"
HEADINGS: dict[Task, str] = {
    "base-to-new": "base-to-new",
    "transfer": "cross-dataset and domain generalization (`transfer`)",
    "few-shot": "few-shot",
}

KINDS = {".yaml": "config", ".sh": "script", ".py": "code", ".md": "guide"}
"""Words for links to the authors' files, whose names would widen the columns."""


def with_table(page: str) -> str:
    """Return the page with the table of today's recipes."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{recipe_table()}\n{END}{rest.partition(END)[2]}"


def recipe_table() -> str:
    """Return a Markdown table: a row for each method that is trained in steps, a column for each task.

    Links are numbered, with their addresses below the table.
    """
    tasks: tuple[Task, ...] = get_args(Task)
    links: dict[str, int] = {}
    lines = [f"| | {' | '.join(HEADINGS[task] for task in tasks)} |", f"|---|{'---|' * len(tasks)}"]
    for name, kind in sorted(METHODS.items(), key=lambda item: _kinds_of_recipe(item[1])):
        if Training.STEPS in kind.trained_by:
            lines.append(f"| `{name}` | {' | '.join(_cell(name, task, links) for task in tasks)} |")
    return "\n".join([*lines, "", *(f"[{number}]: {url}" for url, number in links.items())]) + "\n"


def _kinds_of_recipe(kind: type[Method]) -> int:
    """Order the methods: those with recipes of their authors for base-to-new, for other tasks, and with ours."""
    if kind.repository is None:
        return 2
    return 0 if "base-to-new" in kind.repository.files else 1


def _cell(name: str, task: Task, links: dict[str, int]) -> str:
    """Describe the recipe of a method for a task, with links to the authors' files, which are added to `links`."""
    spec, repository = parse_method(name), METHODS[name].repository
    if repository is None:
        return f"ours: {describe_recipe(spec, task)[0].recipe}" if task == "base-to-new" else "as base-to-new"
    if task not in repository.files:
        return f"no recipe of theirs; as {next(iter(repository.files))}"
    return "<br>".join(_line(line, repository, links) for line in describe_recipe(spec, task))


def _line(line: RecipeLine, repository: Repository, links: dict[str, int]) -> str:
    where = f"{line.where}: " if line.where else ""
    settings = f"`{line.settings}`" if line.settings else ""
    files = []
    for file in line.files:
        number = links.setdefault(repository.url(file), len(links) + 1)
        files.append(f"[{KINDS[Path(file).suffix]}][{number}]")
    return f"{where}{', '.join(filter(None, [line.recipe, settings]))} ({', '.join(files)})"


if __name__ == "__main__":
    PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
