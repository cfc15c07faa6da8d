"""Runs the modules of this package, shows what held, and fails where something did not."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gopro.runs.environment import describe_machine, describe_versions
from tools import torture
from tools.torture.rows import Row, table, written

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


def modules() -> dict[str, ModuleType]:
    """Those that have something to run, by name."""
    names = [module.name for module in pkgutil.iter_modules(torture.__path__) if module.name != "__main__"]
    imported = {name: importlib.import_module(f"tools.torture.{name}") for name in names}
    return {name: module for name, module in imported.items() if hasattr(module, "run")}


def tried(name: str, module: ModuleType, times: int | None, console: Console) -> list[Row]:
    """Runs a module in a scratch folder, which is kept where something did not hold, and shows its rows."""
    console.print(f"[bold]{name}[/], seed {getattr(module, 'SEED', 'none')}", highlight=False)
    shown = Table("what", "tried", "held", "seen")
    work, rows = Path(tempfile.mkdtemp(prefix=f"torture-{name}-")), []
    for row in module.run(work, times):
        rows.append(row)
        shown.add_row(escape(row.what), str(row.tried), str(row.held), escape(row.note))
        console.print(f"{row.what}: {row.held} of {row.tried}", highlight=False, markup=False, soft_wrap=True)
    console.print(shown)
    if all(row.held == row.tried for row in rows):
        shutil.rmtree(work, ignore_errors=True)
    else:
        console.print(f"what is left of it: {work}", style="red", highlight=False, soft_wrap=True)
    return rows


def report(name: str, rows: list[Row], times: int | None, seconds: float) -> str:
    """The rows for the page, with the command that repeats them."""
    command = f"python -m tools.torture {name}" + ("" if times is None else f" --times {times}")
    when = f"{datetime.now(UTC):%Y-%m-%d}, {seconds / 60:.0f} min on {describe_machine()}; {describe_versions()}."
    return f"    {command}\n\n{when}\n\n{table(rows)}"


def main() -> None:
    """The command."""
    known = modules()
    parser = argparse.ArgumentParser(prog="python -m tools.torture", description=torture.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all if none is given")
    parser.add_argument("--times", type=int, help="trials a row, instead of each module's own number")
    parser.add_argument("--write", action="store_true", help=f"write the rows to {PAGE.name}")
    given = parser.parse_args()
    if unknown := set(given.names) - set(known):
        parser.error(f"{', '.join(sorted(unknown))}: choose of {', '.join(known)}")
    console, held = Console(), True
    for name in given.names or known:
        started = time.monotonic()
        rows = tried(name, known[name], given.times, console)
        held &= all(row.held == row.tried for row in rows)
        if given.write:
            content = report(name, rows, given.times, time.monotonic() - started)
            PAGE.write_text(written(PAGE.read_text(encoding="utf-8"), name, content), encoding="utf-8")
    sys.exit(not held)


if __name__ == "__main__":
    main()
